// A server of net/http that says which requests it read: the port of the client, and the target.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	handler := func(answer http.ResponseWriter, request *http.Request) {
		io.Copy(io.Discard, request.Body)
		_, port, _ := net.SplitHostPort(request.RemoteAddr)
		fmt.Println(port, request.RequestURI)
	}
	http.Serve(listener, http.HandlerFunc(handler))
}

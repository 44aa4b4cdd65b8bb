// What net/http of Go does with HTTP/2: http2 WHAT URL. It knows its environment alone, and says what it got.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

func main() {
	log.SetFlags(0)
	what := map[string]func(string){
		"many": many, "talk": talk, "trailers": trailers, "early": early, "wait": wait, "leave": leave, "grpc": grpc,
	}
	what[os.Args[1]](os.Args[2])
}

func ask(method, url string, body io.Reader, fields ...string) *http.Request {
	request, err := http.NewRequest(method, url, body)
	must(err)
	for at := 0; at < len(fields); at += 2 {
		request.Header.Set(fields[at], fields[at+1])
	}
	return request
}

func do(request *http.Request) *http.Response {
	answer, err := http.DefaultClient.Do(request)
	must(err)
	return answer
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func all(from io.Reader) []byte {
	data, err := io.ReadAll(from)
	must(err)
	return data
}

// Requests at once, each with a body of its own, which comes back.
func many(url string) {
	var group sync.WaitGroup
	for number := 0; number < 20; number++ {
		group.Add(1)
		go func(number int) {
			defer group.Done()
			body := bytes.Repeat([]byte(strconv.Itoa(number)+","), 30000)
			answer := do(ask("POST", url+"/"+strconv.Itoa(number), bytes.NewReader(body)))
			same := bytes.Equal(all(answer.Body), body)
			fmt.Println(number, answer.Proto, answer.StatusCode, same)
		}(number)
	}
	group.Wait()
}

// Both sides talk in turn on one stream, and this side ends first.
func talk(url string) {
	reader, writer := io.Pipe()
	answer := do(ask("POST", url, reader, "Content-Type", "text/event-stream"))
	piece := make([]byte, 100)
	for _, word := range []string{"one", "two", "three"} {
		_, err := io.WriteString(writer, word+"\n")
		must(err)
		size, err := answer.Body.Read(piece)
		must(err)
		fmt.Print(string(piece[:size]))
	}
	must(writer.Close())
	fmt.Println(string(all(answer.Body)))
}

func trailers(url string) {
	request := ask("POST", url, io.MultiReader(strings.NewReader("body")), "TE", "trailers")
	request.Trailer = http.Header{"X-Checksum": []string{"12"}}
	answer := do(request)
	fmt.Println(string(all(answer.Body)))
	for name, values := range answer.Trailer {
		fmt.Println(name, values[0])
	}
}

// An answer comes before the body is sent; the next request goes on over the same connection.
func early(url string) {
	reader, writer := io.Pipe()
	answer := do(ask("POST", url, reader))
	fmt.Println(answer.StatusCode, string(all(answer.Body)))
	writer.CloseWithError(errors.New("enough"))
	again := do(ask("GET", url+"/again", nil))
	fmt.Println(again.StatusCode, string(all(again.Body)))
}

// The body is sent once the other side wants it.
func wait(url string) {
	http.DefaultTransport.(*http.Transport).ExpectContinueTimeout = time.Hour
	answer := do(ask("POST", url, strings.NewReader("wanted"), "Expect", "100-continue"))
	fmt.Println(answer.StatusCode, string(all(answer.Body)))
}

// A request that is taken back in the middle of its answer.
func leave(url string) {
	ctx, cancel := context.WithCancel(context.Background())
	answer := do(ask("GET", url, nil).WithContext(ctx))
	piece := make([]byte, 1)
	_, err := answer.Body.Read(piece)
	must(err)
	cancel()
	_, err = io.ReadAll(answer.Body)
	fmt.Println(errors.Is(err, context.Canceled))
}

// A call of gRPC with nothing but net/http: messages from the arguments, what comes back, and its status.
func grpc(url string) {
	var body bytes.Buffer
	for _, message := range os.Args[3:] {
		body.WriteByte(0)
		must(binary.Write(&body, binary.BigEndian, uint32(len(message))))
		body.WriteString(message)
	}
	answer := do(ask("POST", url, &body, "Content-Type", "application/grpc", "TE", "trailers"))
	fmt.Println(answer.Proto, answer.Header.Get("Content-Type"))
	head := make([]byte, 5)
	for {
		if _, err := io.ReadFull(answer.Body, head); err == io.EOF {
			break
		} else {
			must(err)
		}
		message := make([]byte, binary.BigEndian.Uint32(head[1:]))
		_, err := io.ReadFull(answer.Body, message)
		must(err)
		fmt.Println(head[0], string(message))
	}
	status := answer.Trailer
	if answer.Header.Get("Grpc-Status") != "" {
		status = answer.Header
	}
	fmt.Println("status", status.Get("Grpc-Status"), status.Get("Grpc-Message"))
}

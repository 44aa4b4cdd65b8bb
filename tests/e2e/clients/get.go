package main

import (
	"io"
	"net/http"
	"os"
)

func main() {
	answer, err := http.Get(os.Args[1])
	if err != nil || answer.StatusCode != 200 {
		os.Exit(9)
	}
	io.Copy(os.Stdout, answer.Body)
}

// A client of google.golang.org/grpc: grpc HOST:PORT. It knows its environment alone, and says what it got.
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"os"
	"sort"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Messages are bytes as they stand.
type plain struct{}

func (plain) Marshal(value interface{}) ([]byte, error) { return *value.(*[]byte), nil }
func (plain) Unmarshal(data []byte, value interface{}) error {
	*value.(*[]byte) = append([]byte(nil), data...)
	return nil
}
func (plain) Name() string { return "plain" }

func main() {
	log.SetFlags(0)
	secure := grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{}))
	channel, err := grpc.Dial(os.Args[1], secure, grpc.WithDefaultCallOptions(grpc.ForceCodec(plain{})))
	must(err)
	defer channel.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	unary(ctx, channel)
	count(ctx, channel)
	talk(ctx, channel)
	for _, method := range []string{"Fail", "Nothing"} {
		told(method, call(ctx, channel, method, ""))
	}
	short, end := context.WithTimeout(ctx, 300*time.Millisecond)
	defer end()
	told("Wait", call(short, channel, "Wait", ""))
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func call(ctx context.Context, channel *grpc.ClientConn, method, message string, options ...grpc.CallOption) error {
	asked, answer := []byte(message), []byte(nil)
	err := channel.Invoke(ctx, "/test.Test/"+method, &asked, &answer, options...)
	if err == nil {
		fmt.Println(method, string(answer))
	}
	return err
}

func told(method string, err error) {
	said := status.Convert(err)
	message := said.Message()
	if said.Code() == codes.DeadlineExceeded {
		message = "" // the words are of whoever noticed first
	}
	fmt.Println(method, said.Code(), message)
}

// One message each way, plain and compressed, with metadata before and after.
func unary(ctx context.Context, channel *grpc.ClientConn) {
	for _, coding := range []string{encoding.Identity, gzip.Name} {
		var head, trailer metadata.MD
		options := []grpc.CallOption{grpc.Header(&head), grpc.Trailer(&trailer), grpc.UseCompressor(coding)}
		must(call(ctx, channel, "Echo", coding+" ", options...))
		show(head)
		show(trailer)
	}
}

func show(fields metadata.MD) {
	var names []string
	for name := range fields {
		if strings.HasPrefix(name, "x-") {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Printf("%s %q\n", name, fields[name])
	}
}

func stream(ctx context.Context, channel *grpc.ClientConn, method string) grpc.ClientStream {
	both := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	made, err := channel.NewStream(ctx, both, "/test.Test/"+method)
	must(err)
	return made
}

func say(on grpc.ClientStream, message string) {
	data := []byte(message)
	must(on.SendMsg(&data))
}

// The server talks, compressed in the end.
func count(ctx context.Context, channel *grpc.ClientConn) {
	for _, asked := range [][2]string{{"Count", "500"}, {"Packed", "!"}} {
		method := asked[0]
		on := stream(ctx, channel, method)
		say(on, asked[1])
		must(on.CloseSend())
		got, last := 0, []byte(nil)
		for ; ; got++ {
			var next []byte
			if err := on.RecvMsg(&next); err == io.EOF {
				break
			} else {
				must(err)
			}
			last = next
		}
		fmt.Println(method, got, string(last))
	}
}

// Both talk in turn: each message waits for the answer to the one before.
func talk(ctx context.Context, channel *grpc.ClientConn) {
	on := stream(ctx, channel, "Talk")
	for number := 0; ; number++ {
		var answer []byte
		must(on.RecvMsg(&answer))
		fmt.Println("Talk", string(answer))
		if number == 3 {
			break
		}
		say(on, fmt.Sprint(number, " "))
	}
	must(on.CloseSend())
	var end []byte
	fmt.Println("Talk", on.RecvMsg(&end))
}

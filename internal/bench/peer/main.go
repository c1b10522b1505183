// Command peer is the small programs that `make bench` compares kbsync with, and the servers that both talk to. It imports only the
// standard library, so that its start costs next to nothing. Each command is a process of its own, whose time and memory are its own.
//
//	peer run -usage FILE -- PROGRAM ARGS   runs a program, and writes its time and peak memory to FILE as JSON
//	peer serve                             serves the ReplyCX API: it parses each upload, discards it, and remembers only numbers
//	peer delay -to ADDRESS                 forwards HTTP requests, each after a delay
//	peer walk DIR                          lists a directory in order, with the size and time of each file
//	peer send -url URL DIR                 uploads a directory as a minimal client does: no state, no hash
//	peer put, peer pages                   fill an S3 bucket from a directory; read the pages of its listing
//	peer evict FILE                        drops a file from the cache of the kernel
//
// The servers print the address that they listen at, and run until stdin ends. So they end with the process that started them.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

func main() {
	commands := map[string]func(ctx context.Context, args []string) error{
		"run": measured, "serve": serve, "delay": delayed, "walk": walk, "send": send, "put": put, "pages": pages, "evict": evict,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "peer: the first argument must be run, serve, delay, walk, send, put, pages or evict")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](context.Background(), os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "peer %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

// listen serves HTTP on a free port of the loopback interface until stdin ends.
func listen(handler http.Handler) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	server := &http.Server{Handler: handler}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // whatever ends it, ends the server
		server.Close()
	}()
	if err := server.Serve(listener); err != http.ErrServerClosed {
		return err
	}
	return nil
}

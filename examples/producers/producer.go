// A producer in Go, without any library: the protocol of Redis is a few lines. With go-redis it is
// redis.NewScript(text).Run(ctx, client, []string{prefix}, arguments...).
// Usage: go run producer.go QUEUE TYPE PAYLOAD [OPTION=VALUE]...
package main

import (
	"bufio"
	"crypto/rand"
	_ "embed"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
)

//go:embed enqueue.lua
var script string

func enqueue(server net.Conn, prefix, queue, jobType, payload string, options ...string) (id string, err error) {
	arguments := []string{"EVAL", script, "1", prefix, "1", "1", rand.Text(), queue, jobType, payload, fmt.Sprint(len(options) / 2)}
	arguments = append(arguments, options...)
	fmt.Fprintf(server, "*%d\r\n", len(arguments))
	for _, argument := range arguments {
		fmt.Fprintf(server, "$%d\r\n%s\r\n", len(argument), argument)
	}
	answer := bufio.NewReader(server)
	if line, err := answer.ReadString('\n'); err != nil || line[0] == '-' {
		return "", fmt.Errorf("enqueue: %s %w", strings.TrimSpace(line), err)
	}
	_, err = fmt.Fscanf(answer, "$%d\r\n%s\r\n", new(int), &id)
	return id, err
}

func main() {
	var options []string
	for _, pair := range os.Args[4:] {
		name, value, _ := strings.Cut(pair, "=")
		options = append(options, name, value)
	}
	prefix, address := "wasmhost", "127.0.0.1:6379"
	if given := os.Getenv("WASMHOST_PREFIX"); given != "" {
		prefix = given
	}
	if given, err := url.Parse(os.Getenv("REDIS_URL")); err == nil && given.Host != "" {
		address = given.Host
	}
	server, err := net.Dial("tcp", address)
	if err == nil {
		defer server.Close()
		var id string
		if id, err = enqueue(server, prefix, os.Args[1], os.Args[2], os.Args[3], options...); err == nil {
			fmt.Println(id)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

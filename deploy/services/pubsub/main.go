// Serves Google's in-memory Pub/Sub fake on one loopback port: pubsub 127.0.0.1:18085.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"cloud.google.com/go/pubsub/v2/pstest"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: pubsub ADDRESS")
		os.Exit(2)
	}
	server := pstest.NewServerWithAddress(os.Args[1])
	fmt.Println("listening on", server.Addr)
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, os.Interrupt)
	<-ended
	server.Close()
}

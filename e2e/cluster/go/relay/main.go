// Command relay accepts TCP connections on a loopback port of the network namespace it was started in, and
// passes them on to an address inside another network namespace. The test cluster has no network link to
// the machine it runs on; the relay is what lets kubectl or a browser on the machine reach one port of it.
//
//	relay LISTEN NAMESPACE TARGET      e.g. relay 127.0.0.1:6443 /run/netns/node1 10.90.0.1:6443
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"
)

// Longer than any answer of a live target takes on the same machine.
const dialTimeout = 5 * time.Second

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: relay LISTEN NAMESPACE TARGET")
	}
	listen, namespace, target := os.Args[1], os.Args[2], os.Args[3]
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		log.Fatal(err)
	}
	if address, ok := listener.Addr().(*net.TCPAddr); !ok || !address.IP.IsLoopback() {
		log.Fatalf("%s is not a loopback address", listen)
	}
	requests := make(chan chan<- dialResult)
	go dialer(namespace, target, requests)
	for {
		client, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go relay(client, requests)
	}
}

type dialResult struct {
	connection net.Conn
	err        error
}

// dialer opens every outgoing connection. A socket belongs to the namespace of the thread that makes it, so
// this goroutine keeps one thread for itself and moves it into the namespace for good.
func dialer(namespace, target string, requests <-chan chan<- dialResult) {
	runtime.LockOSThread()
	if err := enter(namespace); err != nil {
		log.Fatal(err)
	}
	address, err := net.ResolveTCPAddr("tcp", target)
	if err != nil {
		log.Fatal(err)
	}
	for answer := range requests {
		connection, err := net.DialTimeout("tcp", address.String(), dialTimeout)
		answer <- dialResult{connection, err}
	}
}

func enter(namespace string) error {
	file, err := os.Open(namespace)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, _, errno := syscall.RawSyscall(sysSetns, file.Fd(), syscall.CLONE_NEWNET, 0); errno != 0 {
		return fmt.Errorf("entering %s: %w", namespace, errno)
	}
	return nil
}

func relay(client net.Conn, requests chan<- chan<- dialResult) {
	defer client.Close()
	answer := make(chan dialResult, 1)
	requests <- answer
	server := <-answer
	if server.err != nil {
		log.Print(server.err)
		return
	}
	defer server.connection.Close()
	done := make(chan struct{})
	go func() {
		pass(server.connection, client)
		close(done)
	}()
	pass(client, server.connection)
	<-done
}

// pass copies one direction, then tells the receiver that nothing more comes.
func pass(to, from net.Conn) {
	// An error here is a peer that went away; closing is all there is to do about it.
	_, _ = io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

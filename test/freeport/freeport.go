// Package freeport finds TCP ports for programs that are told where to listen.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
)

// claims keep the claimed ports until this process ends.
var (
	mu     sync.Mutex
	claims []net.Listener
)

// Address is one of the loopback interface at which nobody listens. The kernel gives its port to nobody who asks for any, where
// net.ipv4.ip_local_port_range leaves some out, and no other caller of this function, in whatever process, gets it while this process lives.
func Address() (string, error) {
	lowest, err := lowestEphemeral()
	if err != nil {
		return "", err
	}
	const first = 10000
	if lowest <= first { // it gives away every port
		lowest = 2 * first
	}
	for range 1000 {
		port := first + rand.IntN(lowest-first)
		claim, failed := net.Listen("unix", fmt.Sprintf("@campaign-credsync-test-port-%d", port))
		if failed != nil {
			err = failed
			continue
		}
		address := fmt.Sprintf("127.0.0.1:%d", port)
		listener, failed := net.Listen("tcp", address)
		if failed != nil {
			claim.Close()
			err = failed
			continue
		}
		mu.Lock()
		claims = append(claims, claim)
		mu.Unlock()
		return address, listener.Close()
	}
	return "", errors.Join(errors.New("no free port"), err)
}

// lowestEphemeral is the lowest port that the kernel gives to who asks for any.
func lowestEphemeral() (port int, err error) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		_, err = fmt.Sscan(string(text), &port)
	}
	return port, err
}

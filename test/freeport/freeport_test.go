package freeport_test

import (
	"fmt"
	"net"
	"os"
	"testing"

	"campaign-credsync/test/freeport"
)

// No address is given twice, somebody can listen there, and nobody gets it who asks for any port.
func TestAddress(t *testing.T) {
	given := map[string]bool{}
	for range 200 {
		address, err := freeport.Address()
		if err != nil {
			t.Fatal(err)
		}
		if given[address] {
			t.Errorf("%s is given twice", address)
		}
		given[address] = true
	}
	for address := range given {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		listener.Close()
	}
	var lowest int // that the kernel gives away
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if _, scanErr := fmt.Sscan(string(text), &lowest); err != nil || scanErr != nil {
		t.Fatal(err, scanErr)
	}
	for range 2000 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listener.Close()
		if given[listener.Addr().String()] && lowest > 10000 {
			t.Fatalf("%s is given to whoever asks for any port", listener.Addr())
		}
	}
}

package freeport_test

import (
	"net"
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
	for range 2000 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listener.Close()
		if given[listener.Addr().String()] {
			t.Fatalf("%s is given to whoever asks for any port", listener.Addr())
		}
	}
}

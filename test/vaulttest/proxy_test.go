package vaulttest

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
)

// While the proxy is down its address refuses connections and is nobody else's; then it listens there again.
func TestProxyKeepsItsPort(t *testing.T) {
	p, err := NewProxy("http://127.0.0.1:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	host := strings.TrimPrefix(p.Address, "http://")
	for range 2 {
		p.Down()
		if conn, err := net.Dial("tcp", host); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("down, and yet %v, %v", conn, err)
		}
		if other, err := net.Listen("tcp", host); err == nil {
			other.Close()
			t.Error("somebody else got the port")
		}
		if err := p.Up(); err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
}

package control

import (
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// peer is who is at the other end of a connection. It is the connection's remote address, which a Unix socket has no other use for.
type peer struct{ uid int }

func (peer) Network() string  { return "unix" }
func (p peer) String() string { return fmt.Sprintf("user %d", p.uid) }

// peers is a listener whose connections know their peer.
type peers struct{ net.Listener }

func (l peers) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	uid := -1 // nobody
	if raw, err := conn.(*net.UnixConn).SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			if who, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
				uid = int(who.Uid)
			}
		})
	}
	return peerConn{conn, peer{uid}}, nil
}

type peerConn struct {
	net.Conn
	peer peer
}

func (c peerConn) RemoteAddr() net.Addr { return c.peer }

// admit lets members of a group open the socket. The group is a name or a number.
func admit(path, group string) error {
	if group == "" {
		return nil
	}
	gid, err := strconv.Atoi(group)
	if err != nil {
		found, err := user.LookupGroup(group)
		if err != nil {
			return fmt.Errorf("control_group: %w", err)
		}
		gid, _ = strconv.Atoi(found.Gid) // always a number on Linux
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return fmt.Errorf("control_group: give the control socket to group %s: %w; the daemon's user has to be a member of it", group, err)
	}
	return os.Chmod(path, 0o660)
}

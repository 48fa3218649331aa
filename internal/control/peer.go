package control

import (
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// crowd is a listener that has at most maxConnections open, without those that wait for an order. For one more, the oldest is closed as
// soon as it had minTurn: a question takes less, so it is of somebody who says nothing, or does not read. So whoever asks is answered
// soon, however many say nothing.
type crowd struct {
	net.Listener
	mu   sync.Mutex
	open []*conn       // oldest first
	left chan struct{} // one of open has left
}

// conn is a connection that knows its peer.
type conn struct {
	net.Conn
	crowd *crowd
	uid   int // unknown where the kernel does not say
	since time.Time
}

const unknown = -1

// connKey is the key of a conn in the context of its requests.
type connKey struct{}

// Accept serves net.Listener.
func (l *crowd) Accept() (net.Conn, error) {
	l.makeRoom()
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{accepted, l, uidOf(accepted), time.Now()}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = append(l.open, c)
	return c, nil
}

// makeRoom returns when there is room for one more.
func (l *crowd) makeRoom() {
	for {
		l.mu.Lock()
		if len(l.open) < maxConnections {
			l.mu.Unlock()
			return
		}
		oldest := l.open[0]
		l.mu.Unlock()
		select {
		case <-l.left:
		case <-time.After(time.Until(oldest.since.Add(minTurn))):
			oldest.Close()
		}
	}
}

// leave takes the connection out of the crowd: it stays open while its order is carried out.
func (c *conn) leave() {
	c.crowd.mu.Lock()
	defer c.crowd.mu.Unlock()
	c.crowd.open = slices.DeleteFunc(c.crowd.open, func(other *conn) bool { return other == c })
	select {
	case c.crowd.left <- struct{}{}:
	default:
	}
}

// Close serves net.Conn.
func (c *conn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// uidOf asks the kernel who is at the other end of a connection.
func uidOf(c net.Conn) int {
	uid := unknown
	local, isLocal := c.(*net.UnixConn)
	if !isLocal {
		return uid
	}
	if raw, err := local.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			if who, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
				uid = int(who.Uid)
			}
		})
	}
	return uid
}

// admit lets members of a group open the socket. The group is a name or a number.
func admit(path, group string) error {
	if group == "" {
		return nil
	}
	gid, err := strconv.Atoi(group)
	if err != nil {
		found, err := user.LookupGroup(group)
		if err != nil {
			return fmt.Errorf("control_group: there is no group %s in /etc/group; name one that is there, or its number", group)
		}
		gid, _ = strconv.Atoi(found.Gid) // always a number on Linux
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return fmt.Errorf("control_group: give the control socket to group %s: %w; the daemon's user has to be a member of it", group, err)
	}
	return os.Chmod(path, 0o660)
}

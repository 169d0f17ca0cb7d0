package admin

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// listener accepts a bounded number of connections on one address.
type listener struct {
	net.Listener
	address string // as a Corefile would write it, with the port it got
	local   bool   // a unix socket
	limit   int
	log     *quietLog
	remove  func() // takes the socket's file away; nil for https

	mu   sync.Mutex
	open int
	once sync.Once
}

// listen binds one address.
func (s *Server) listen(address string, cfg Config) (*listener, error) {
	l := &listener{address: address, limit: s.limits.Connections, log: s.log}
	scheme, rest, _ := strings.Cut(address, "://")
	switch scheme {
	case "unix":
		path, err := socketPath(address)
		if err != nil {
			return nil, err
		}
		l.local = true
		l.Listener, l.remove, err = ListenUnix(path)
		return l, err
	case "https":
		addr, err := netip.ParseAddrPort(rest)
		if err != nil {
			return nil, fmt.Errorf("want an IP address and a port, as in https://192.0.2.1:8153 or https://[2001:db8::1]:8153")
		}
		if cfg.Identity == nil || cfg.Authority == nil {
			return nil, errors.New("https needs this node's certificate and the CA's")
		}
		l.Listener, err = net.Listen("tcp", addr.String())
		if err != nil {
			return nil, bindError(err)
		}
		l.address = "https://" + l.Listener.Addr().String()
		return l, nil
	case "http":
		return nil, errors.New("never without TLS: want https://IP:PORT, or unix:///PATH on this machine")
	}
	return nil, errors.New("want unix:///PATH or https://IP:PORT")
}

// socketPath is the path of a unix:///PATH address.
func socketPath(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host != "" || !filepath.IsAbs(u.Path) || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("want three slashes and an absolute path, as in unix:///run/puppetsrv/admin.sock")
	}
	// sun_path of sockaddr_un, with its final zero byte.
	if most := len(syscall.RawSockaddrUnix{}.Path) - 1; len(u.Path) > most {
		return "", fmt.Errorf("the path of a socket has at most %d bytes, this one %d", most, len(u.Path))
	}
	return filepath.Clean(u.Path), nil
}

func bindError(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return errors.New("another process, or another line, has this port")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return errors.New("this machine does not have this IP address")
	}
	return err
}

// Accept closes connections that are too many at once, rather than letting them
// wait: whoever comes sees that something is wrong.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		l.mu.Lock()
		room := l.open < l.limit
		if room {
			l.open++
		}
		l.mu.Unlock()
		if room {
			return &connection{Conn: c, listener: l}, nil
		}
		l.log.warn(l.address, "admin %s: %d connections are open, one more from %s was closed", l.address, l.limit, c.RemoteAddr())
		c.Close()
	}
}

func (l *listener) Close() error {
	err := l.Listener.Close()
	if l.remove != nil {
		l.once.Do(l.remove)
	}
	return err
}

// connection gives its place back when it is closed.
type connection struct {
	net.Conn
	listener *listener
	once     sync.Once
}

func (c *connection) Close() error {
	c.once.Do(func() {
		c.listener.mu.Lock()
		c.listener.open--
		c.listener.mu.Unlock()
	})
	return c.Conn.Close()
}

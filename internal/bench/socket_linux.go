package main

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"
)

// socket is a connected UDP socket that Go's runtime does not watch. A watched
// one has a thread waiting for it, and to wake that thread for every answer
// would be a large part of what the server under test does.
type socket struct {
	fd     int
	server netip.AddrPort
}

func dialSocket(server netip.AddrPort) (*socket, error) {
	if !server.Addr().Is4() {
		return nil, fmt.Errorf("asking %v: only IPv4 is supported here", server)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("making a socket: %w", err)
	}
	_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<20) // less is granted, or none: answers are counted
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(server.Port()), Addr: server.Addr().As4()}); err != nil {
		syscall.Close(fd)
		return nil, fmt.Errorf("connecting to %v: %w", server, err)
	}
	return &socket{fd: fd, server: server}, nil
}

func (s *socket) close() { syscall.Close(s.fd) }

// send returns false if there is no room for it now.
func (s *socket) send(b []byte) (bool, error) {
	_, err := syscall.Write(s.fd, b)
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ENOBUFS) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("asking %v: %w", s.server, err)
	}
	return true, nil
}

// receive returns 0 if nothing is there now.
func (s *socket) receive(b []byte) (int, error) {
	n, err := syscall.Read(s.fd, b)
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("waiting for an answer of %v: %w", s.server, err)
	}
	return n, nil
}

// rest puts the thread to sleep, past Go's scheduler and its timers.
func rest(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil) // cut short by a signal: as good
}

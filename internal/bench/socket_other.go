//go:build !linux

package main

import (
	"errors"
	"net/netip"
	"time"
)

// socket exists on Linux alone: the measurements read its /proc anyway.
type socket struct{}

func dialSocket(netip.AddrPort) (*socket, error) {
	return nil, errors.New("measuring: this needs Linux")
}

func (*socket) close()                      {}
func (*socket) send([]byte) (bool, error)   { return false, nil }
func (*socket) receive([]byte) (int, error) { return 0, nil }
func rest(d time.Duration)                  { time.Sleep(d) }

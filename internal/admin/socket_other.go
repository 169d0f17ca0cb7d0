//go:build !linux

package admin

import (
	"errors"
	"net"
	"syscall"
)

// restrict can do nothing here; the mode is set after binding.
func restrict(string, string, syscall.RawConn) error { return nil }

func peer(*net.UnixConn) (uint32, error) {
	return 0, errors.New("this system does not say who is at the other end of a socket")
}

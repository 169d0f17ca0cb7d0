package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Modes of the unix socket: who may open it may write, so it is for root and the
// group of the service.
const (
	socketMode    = 0o660
	socketDirMode = 0o750
)

// ListenUnix makes a unix socket for root and the group, in place of one that a dead process left. remove takes
// the file away if it is still this socket's.
func ListenUnix(path string) (l net.Listener, remove func(), err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, socketDirMode); err != nil {
		return nil, nil, err
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, nil, err
	}
	config := net.ListenConfig{Control: restrict}
	l, err = config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	mine, err := os.Lstat(path)
	if err == nil {
		err = os.Chmod(path, socketMode) // what the umask took away
	}
	if err != nil {
		l.Close()
		os.Remove(path)
		return nil, nil, err
	}
	return l, func() {
		if now, err := os.Lstat(path); err == nil && os.SameFile(mine, now) {
			os.Remove(path)
		}
	}, nil
}

// lockDir keeps two processes that start at once from removing each other's socket.
// It is held for the moment of binding only.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for until := time.Now().Add(time.Second); ; time.Sleep(10 * time.Millisecond) {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(until) {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", dir, err)
		}
	}
}

// removeStale removes the socket of a dead process. Anything else in its place is
// an error.
func removeStale(path string) error {
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case fi.Mode().Type() != os.ModeSocket:
		return fmt.Errorf("%s is in its place, and no socket: remove it, or choose another path", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		c.Close()
		return errors.New("another process, or another line, listens on this socket")
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	return fmt.Errorf("a socket is in its place, and whether a process listens on it cannot be seen: %w", err)
}

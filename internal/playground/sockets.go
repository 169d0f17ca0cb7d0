package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
)

// socketsName is, in the run directory, a link to the directory of the sockets
// where that is another. It tells the next start what to remove.
const socketsName = "sockets"

func (l layout) socketPath(unit string) string { return filepath.Join(l.sockets, unit+".sock") }

// socketPaths are those of the nodes' APIs and of the members.
func (l layout) socketPaths() (paths []string) {
	for _, n := range l.nodes {
		paths = append(paths, l.socketPath(n.name))
	}
	for _, m := range l.masters {
		paths = append(paths, l.socketPath(m.name))
	}
	return paths
}

// openSockets says where the sockets are: in the run directory, or in a
// short one of their own if the run directory's path is too long for a socket or
// cannot be written as unix:///PATH.
func (l layout) openSockets() (string, error) {
	if l.fitsSockets(l.dir) {
		return l.dir, nil
	}
	for _, parent := range []string{os.TempDir(), "/tmp"} {
		dir, err := os.MkdirTemp(parent, "puppetsrv-")
		if err != nil {
			continue
		}
		if l.fitsSockets(dir) {
			err := os.Symlink(dir, filepath.Join(l.dir, socketsName))
			if err != nil {
				return "", errors.Join(fmt.Errorf("noting where the sockets are: %w", err), os.Remove(dir))
			}
			return dir, nil
		}
		_ = os.Remove(dir)
	}
	return "", fmt.Errorf("the path of %s is too long for a socket, and neither %s nor /tmp has room for one: choose a shorter -dir", l.dir, os.TempDir())
}

// fitsSockets reports whether every socket can be in dir.
func (l layout) fitsSockets(dir string) bool {
	l.sockets = dir
	for _, path := range l.socketPaths() {
		u, err := url.Parse("unix://" + path)
		// sun_path of sockaddr_un, with its final zero byte.
		if err != nil || u.Path != path || u.Host != "" || len(path) >= len(syscall.RawSockaddrUnix{}.Path) {
			return false
		}
	}
	return true
}

// removeSockets removes what openSockets made for a run directory, and what the
// nodes and members put there.
func (l layout) removeSockets() error {
	dir, err := os.Readlink(filepath.Join(l.dir, socketsName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("finding the sockets: %w", err)
	}
	l.sockets = dir
	for _, path := range l.socketPaths() {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing a socket: %w", err)
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the directory of the sockets: %w", err)
	}
	return nil
}

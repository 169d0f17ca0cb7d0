// Package store keeps small state on disk so that it survives a kill at any
// instruction and a power cut: a file is either the old one or the new one.
//
// A damaged file is an error for the caller to report; it is never reset here.
package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// MaxFileSize bounds what ReadFile reads, in bytes.
const MaxFileSize = 64 << 20

// WriteFile replaces path with data, mode 0600: temporary file, fsync, rename,
// fsync of the directory. The new content is on disk when it returns nil; with an
// error the file has the old content or, if only the last step failed, the new.
// The temporary file has a fixed name, so that a kill leaves at most one; callers
// write a path one at a time.
func WriteFile(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("writing %s: %w", path, err)
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// ReadFile reads a file of at most MaxFileSize bytes.
func ReadFile(path string) ([]byte, error) {
	if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("reading %s: no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxFileSize {
		return nil, fmt.Errorf("reading %s: larger than %d bytes", path, MaxFileSize)
	}
	return data, nil
}

// ErrLocked is returned by LockDir when another process has the directory.
var ErrLocked = errors.New("in use by another process: give each server a directory of its own")

// Lock is a held directory. The kernel gives it up with the process.
type Lock struct{ f *os.File }

// LockDir makes dir where it is missing and takes it for this process. It does
// not wait.
func LockDir(dir string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, fmt.Errorf("state directory %s: %w", dir, err)
	}
	return &Lock{f}, nil
}

// Unlock gives the directory up.
func (l *Lock) Unlock() error { return l.f.Close() }

// Dir is a directory whose files are read and written whole, as ReadFile and
// WriteFile do.
type Dir string

// Read returns a file's content; it wraps fs.ErrNotExist where there is none.
func (d Dir) Read(name string) ([]byte, error) { return ReadFile(filepath.Join(string(d), name)) }

// Write replaces a file; see WriteFile.
func (d Dir) Write(name string, data []byte) error {
	return WriteFile(filepath.Join(string(d), name), data)
}

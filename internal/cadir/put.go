package cadir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/puppetsrv/puppetsrv/internal/store"
)

// attributes are what a file is given before it gets its name.
type attributes struct {
	uid, gid int // -1: as they are
	mode     uint32
	time     time.Time
}

// give sets an open file's attributes.
func (a attributes) give(f *os.File) error {
	if a.uid >= 0 && (a.uid != os.Geteuid() || a.gid != os.Getegid()) {
		if err := f.Chown(a.uid, a.gid); err != nil {
			return err
		}
	}
	if !a.time.IsZero() {
		at := unix.NsecToTimespec(a.time.UnixNano())
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, f.Name(), []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return os.NewSyscallError("utimensat", err)
		}
	}
	return unix.Fchmod(int(f.Fd()), a.mode)
}

// putTop replaces a file of the cadir itself by rename, and durably. The temporary file
// is in the work directory, which puppetserver's user cannot write to.
func (d *Dir) putTop(name string, data []byte, a attributes) error {
	return d.put(name, data, a, func() error { return nil })
}

// putSerial replaces the serial, unless it is another file by now than it was.
func (d *Dir) putSerial(data []byte, was stamp, a attributes) error {
	return d.put(serialFile, data, a, func() error {
		if now, err := statPath(d.file(serialFile)); err != nil || now.inode != was.inode {
			return errors.Join(err, errors.New("the serial was written by somebody else, though it is sealed"))
		}
		return nil
	})
}

func (d *Dir) put(name string, data []byte, a attributes, last func() error) error {
	temp := d.work(name + ".new")
	if err := d.makeWork(); err != nil {
		return err
	}
	if err := writeNew(temp, data, a); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := d.step("put " + name); err != nil {
		return err
	}
	if err := last(); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := os.Rename(temp, d.file(name)); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if now, err := statPath(d.file(name)); err == nil && name == serialFile {
		d.remember(now, data)
	}
	return syncDir(d.path)
}

// writeNew writes a file that is then on disk.
func writeNew(path string, data []byte, a attributes) (err error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = a.give(f)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// exclusive keeps other processes from replacing the cadir too. A lock that is held is
// waited for a moment: a program that is being started has those of its parent.
func (d *Dir) exclusive(ctx context.Context) (*store.Lock, error) {
	for try := 0; ; try++ {
		lock, err := store.LockDir(d.work())
		if err == nil || !errors.Is(err, store.ErrLocked) || try == 40 {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// makeWork makes the work directory where it is missing.
func (d *Dir) makeWork() error {
	if err := os.MkdirAll(d.work(), 0o700); err != nil {
		return fmt.Errorf("the directory for what is fetched: %w", err)
	}
	return nil
}

// syncDir makes what was renamed in a directory durable.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// rename is os.Rename that is durable, and does nothing if it was done.
func rename(from, to string) error {
	err := os.Rename(from, to)
	if errors.Is(err, fs.ErrNotExist) {
		if _, e := os.Lstat(to); e == nil {
			err = nil
		}
	}
	if err == nil {
		err = syncDir(filepath.Dir(to))
	}
	return err
}

package cadir

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// stamp is what a file looks like from outside. While it is the same, so is the content:
// who writes gives a file a new inode by a rename, or a new size or time.
type stamp struct {
	size     int64
	modified int64 // ns
	changed  int64 // ns, of the inode
	inode    uint64
	kind     uint32 // type bits of the mode
	mode     uint32 // permission bits
	uid, gid uint32
}

// zero is a file that is not there.
func (s stamp) zero() bool { return s.inode == 0 }

func (s stamp) regular() bool { return s.kind == unix.S_IFREG }

func (s stamp) directory() bool { return s.kind == unix.S_IFDIR }

func (s stamp) time() time.Time { return time.Unix(0, s.modified) }

// statPath looks at a path and follows no link; a zero stamp is no such file.
func statPath(path string) (stamp, error) { return statAt(unix.AT_FDCWD, path) }

func statAt(dir int, name string) (stamp, error) {
	var st unix.Stat_t
	for {
		err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		switch err {
		case nil:
			return stampOf(&st), nil
		case unix.EINTR:
			continue
		case unix.ENOENT:
			return stamp{}, nil
		}
		return stamp{}, &os.PathError{Op: "stat", Path: name, Err: err}
	}
}

func statFile(f *os.File) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return stamp{}, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return stampOf(&st), nil
}

// errMoved is a file that was changed while it was read.
var errMoved = fmt.Errorf("it changed while it was read")

// openRegular opens a file that is no link and nothing but a file: the directory is
// puppetserver's, and who has that must not have others read what he names.
func openRegular(path string) (*os.File, stamp, error) {
	// O_NONBLOCK, for a pipe would be waited for.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, stamp{}, err
	}
	s, err := statFile(f)
	if err == nil && !s.regular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, stamp{}, err
	}
	return f, s, nil
}

// readRegular reads a file of at most max bytes, as it was at one instant.
func readRegular(path string, max int64) ([]byte, stamp, error) {
	f, before, err := openRegular(path)
	if err != nil {
		return nil, stamp{}, err
	}
	defer f.Close()
	data, err := readOpen(f, before, max)
	return data, before, err
}

func readOpen(f *os.File, before stamp, max int64) ([]byte, error) {
	if before.size > max {
		return nil, fmt.Errorf("it has %d bytes: %d are the most", before.size, max)
	}
	data := make([]byte, before.size)
	if _, err := io.ReadFull(f, data); err == io.ErrUnexpectedEOF || err == io.EOF {
		return nil, errMoved
	} else if err != nil {
		return nil, err
	}
	after, err := statFile(f)
	if err == nil && (after.size != before.size || after.modified != before.modified) {
		err = errMoved
	}
	return data, err
}

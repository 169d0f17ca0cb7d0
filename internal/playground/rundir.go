package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const (
	lockName    = "playground.lock"
	stateName   = "playground.json"
	controlName = "control.sock"
	logDirName  = "log"
)

// rundir is a run directory whose lock this process holds. The lock is what
// says that a playground runs: it ends with the process, however that ends,
// and no pid read from a file can be mistaken for it. The lock's file also
// marks the directory as a playground's, so that nothing of anybody else's is
// ever removed.
type rundir struct {
	dir  string
	lock *os.File
}

// runningError says that the lock is held.
type runningError struct {
	dir string
	pid int
}

func (e *runningError) Error() string {
	return fmt.Sprintf("a playground runs in %s already (pid %d)", e.dir, e.pid)
}

// openRundir makes the directory if need be and takes its lock. It reports
// whether a playground that did not clean up was there before; its files are
// still there then.
func openRundir(dir string) (r *rundir, leftover int, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, 0, fmt.Errorf("making the run directory: %w", err)
	}
	r, leftover, err = lockRundir(dir, os.O_CREATE)
	if err != nil || leftover != 0 {
		return r, leftover, err
	}
	// No playground was here: whatever has a name that we would write, and at
	// the end remove, is somebody else's.
	for _, name := range ownNames() {
		if _, err := os.Lstat(filepath.Join(dir, name)); name != lockName && err == nil {
			err := fmt.Errorf("%s holds a %q that is not a playground's: choose another -dir", dir, name)
			return nil, 0, errors.Join(err, r.release())
		}
	}
	return r, 0, nil
}

// lockRundir takes the lock, or says who holds it. A lock file that was there,
// unlocked, is a left-over: its pid is returned.
func lockRundir(dir string, create int) (*rundir, int, error) {
	path := filepath.Join(dir, lockName)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|create, 0o644)
		if err != nil {
			return nil, 0, fmt.Errorf("opening the lock of the run directory: %w", err)
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			pid := readPid(f)
			f.Close()
			return nil, 0, &runningError{dir: dir, pid: pid}
		}
		if err != nil {
			f.Close()
			return nil, 0, fmt.Errorf("locking %s: %w", path, err)
		}
		// The holder before us may have removed the file between our open and
		// our lock; then what we hold is no lock any more.
		held, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, 0, fmt.Errorf("locking %s: %w", path, err)
		}
		if there, err := os.Stat(path); err != nil || !os.SameFile(held, there) {
			f.Close()
			continue
		}
		before := readPid(f)
		_, err = f.WriteAt(fmt.Appendf(nil, "%-10d\n", os.Getpid()), 0)
		if err != nil {
			f.Close()
			return nil, 0, fmt.Errorf("writing %s: %w", path, err)
		}
		return &rundir{dir: dir, lock: f}, before, nil
	}
}

func readPid(f *os.File) int {
	b := make([]byte, 32)
	n, _ := f.ReadAt(b, 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	return pid
}

// ownNames are the entries of a run directory that a playground makes, but the
// logs, which may outlive it.
func ownNames() []string {
	l := anyLayout("")
	names := []string{stateName, stateName + ".tmp", controlName, socketsName, filepath.Base(l.zonePath()), filepath.Base(l.sslDir())}
	for _, n := range l.nodes {
		names = append(names, n.name, filepath.Base(l.socketPath(n.name)))
	}
	for _, m := range l.masters {
		names = append(names, m.name, m.memberName(), filepath.Base(l.socketPath(m.name)))
	}
	return append(names, lockName) // the last to go
}

// anyLayout has the names that every layout of a run directory has.
func anyLayout(dir string) layout {
	l, _ := newLayout(options{dir: dir, base: netip.IPv4Unspecified()})
	return l
}

// clear removes what a playground makes but the lock, and the logs of all but
// the kept names.
func (r *rundir) clear(keep ...string) error {
	errs := []error{anyLayout(r.dir).removeSockets()}
	for _, name := range ownNames() {
		if name == lockName {
			continue
		}
		errs = append(errs, os.RemoveAll(filepath.Join(r.dir, name)))
		if !slices.Contains(keep, name) {
			if err := os.Remove(logPath(r.dir, name)); !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	_ = os.Remove(filepath.Join(r.dir, logDirName)) // when empty
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clearing the run directory: %w", err)
	}
	return nil
}

// close clears the directory and gives the lock back.
func (r *rundir) close(keep ...string) error {
	if err := r.clear(keep...); err != nil {
		// What is left stays marked as a playground's, for the next start.
		return errors.Join(err, r.lock.Close())
	}
	return r.release()
}

// release gives the lock back and removes its file, and the directory if
// nothing else is in it.
func (r *rundir) release() error {
	err := os.Remove(filepath.Join(r.dir, lockName))
	_ = os.Remove(r.dir)
	return errors.Join(err, r.lock.Close())
}

func logPath(dir, name string) string { return filepath.Join(dir, logDirName, name+".log") }

package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// The files with which a server starts in recovery (PostgreSQL 12 and later).
const (
	standbySignal  = "standby.signal"
	recoverySignal = "recovery.signal"
)

// Guard puts standby.signal in the data directory, if it is not there: whoever starts
// the server gets one in recovery, which writes nothing, until it is promoted. It is
// on disk when Guard returns nil. It does nothing to a server that runs, unless that
// one starts again, by itself after a crash of one of its processes for one.
//
// Why that is safe. The server first recovers what it has itself, to the end of its own
// log, notes that it has come so far (the minimum recovery point), and only then looks
// for somebody to stream from; so its files cannot follow another timeline from before
// where they are, which a former primary's could otherwise: what its own log has behind
// the fork would stay in them. The exception is a restore_command over an archive that
// it shares with the camaster, which brings it the newer timeline's history before
// that: rejoin it by Plan, which recovers it apart from all others first.
//
// What it costs. Opening is then always a promotion, and a promotion makes a new
// timeline, also where nobody else was open in between. Standbys follow a new timeline
// by themselves (recovery_target_timeline is latest by default), and it is of use: what
// is on the old number and not in the new one's history was written by somebody who was
// closed. The server needs wal_level = replica or more and hot_standby = on, as every
// camaster does, and cannot be opened by taking the file away and starting it, which
// is the point; pg_promote() opens it by hand.
func (s *Service) Guard() error {
	if err := guard(s.cfg.Data); err != nil {
		return fmt.Errorf("guarding %s by %s: %w", s.cfg.Data, standbySignal, err)
	}
	return nil
}

// guard makes the file in a directory that has a server's data, as its owner's.
func guard(data string) error {
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); err != nil {
		return fmt.Errorf("it is no data directory of PostgreSQL: %w", err)
	}
	path := filepath.Join(data, standbySignal)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return syncDir(data) // it may be from a moment ago, and of somebody who was killed
	}
	if err != nil {
		return err
	}
	err = chownAs(f, data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return syncDir(data)
}

// chownAs gives f the owner of dir, if this process may.
func chownAs(f *os.File, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}

// syncDir makes what happened to the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// exists reports whether there is such a file in the data directory.
func (s *Service) exists(name string) bool {
	_, err := os.Lstat(filepath.Join(s.cfg.Data, name))
	return err == nil
}

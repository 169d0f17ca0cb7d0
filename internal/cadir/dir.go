package cadir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/store"
)

// The modes of holding the role.
const (
	ModeHot     = "hot"     // the CA service is on everywhere, and sealed where it is not open
	ModeService = "service" // as well, ca.cfg is toggled and puppetserver restarted
)

// Options of a Dir.
type Options struct {
	Mode string // ModeHot if empty
	// State is a directory for what has to survive a restart: which camaster's version
	// the serial was moved for, and since when it is sealed. "": Work.
	State string
	// Work is a directory on the cadir's own file system, in a parent that is not
	// puppetserver's: what is fetched is there, and the journal of a replacement.
	// "": the cadir's path with ".puppetsrv" behind it.
	Work string
	// Owner is the user that puppetserver runs as, for where there is no cadir yet whose
	// owner would tell. "": "puppet" if there is one and this process is root, else this
	// process's own.
	Owner string
	// Turn is this host's among the Turns that may ever open this CA, from 0: each moves
	// the serial into blocks of its own. Turns 0 or 1: there is no other.
	Turn, Turns uint64
	Log         *slog.Logger // nil: none
}

// Dir is a cadir. It is safe for concurrent use. One process at a time may change one;
// see Lock.
type Dir struct {
	path     string
	options  Options
	state    store.Dir
	log      *slog.Logger
	workers  int
	uid, gid int // of Options.Owner

	// change is held by who changes the cadir: seal, serial, replacement.
	change lock
	// looking is held by who looks, and guards what follows.
	looking lock
	tops    map[string]known
	signed  map[string]known // by path
	order   []string         // paths, sorted, as of the last set; some may be gone since
	added   []string         // paths that came since
	listed  stamp            // of signed/ when it was listed; zero if that is to be done anew
	full    time.Time        // when each file in signed/ was looked at last
	staged  map[Sum]*content // verified, and about to be live
	set     *Set             // nil: there is none, because of problem
	problem error
	checked bool // set and problem are of what tops and signed hold
	reads   int  // files read since the start

	mu         sync.Mutex // guards what follows
	follow     following
	sealedAs   stamp // of the serial, where this process cannot read it
	sealedData []byte

	step   func(name string) error // before each change on disk; for tests: an error is a crash
	settle time.Duration
}

// known is a file that was looked at.
type known struct {
	stamp
	*content
}

// Open takes a cadir, which need not exist yet. It changes nothing.
func Open(path string, o Options) (*Dir, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("cadir %q: give an absolute path, as `puppet config print cadir` does", path)
	}
	// Upstream's packages leave a link at the old place.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cadir %q: %w", path, err)
	}
	path = filepath.Clean(path)
	if o.Mode == "" {
		o.Mode = ModeHot
	}
	if o.Mode != ModeHot && o.Mode != ModeService {
		return nil, fmt.Errorf("cadir %q: mode %q: %q and %q are", path, o.Mode, ModeHot, ModeService)
	}
	if o.Work == "" {
		o.Work = path + ".puppetsrv"
	}
	if o.State == "" {
		o.State = o.Work
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d := &Dir{
		path: path, options: o, state: store.Dir(o.State), log: o.Log, workers: max(1, runtime.GOMAXPROCS(0)),
		change: newLock(), looking: newLock(), tops: make(map[string]known), signed: make(map[string]known),
		staged: make(map[Sum]*content), step: func(string) error { return nil }, settle: settle,
	}
	var err error
	if d.uid, d.gid, err = ownerOf(o.Owner); err != nil {
		return nil, fmt.Errorf("cadir %q: %w", path, err)
	}
	return d, nil
}

// ownerOf finds the user that a new cadir is for.
func ownerOf(name string) (uid, gid int, err error) {
	if name == "" {
		if os.Geteuid() != 0 {
			return os.Geteuid(), os.Getegid(), nil
		}
		if _, err := user.Lookup("puppet"); err != nil {
			return os.Geteuid(), os.Getegid(), nil
		}
		name = "puppet"
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, fmt.Errorf("the owner of a new CA: %w", err)
	}
	if uid, err = strconv.Atoi(u.Uid); err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("the owner of a new CA, %s: %w", name, err)
	}
	return uid, gid, nil
}

// Path is where the cadir is, without links.
func (d *Dir) Path() string { return d.path }

// Mode is that of its options.
func (d *Dir) Mode() string { return d.options.Mode }

func (d *Dir) file(path string) string { return filepath.Join(d.path, filepath.FromSlash(path)) }

func (d *Dir) work(elem ...string) string {
	return filepath.Join(append([]string{d.options.Work}, elem...)...)
}

// owner is who puppetserver runs as: the cadir's owner.
func (d *Dir) owner() (uid, gid int, mode uint32, err error) {
	s, err := statPath(d.path)
	switch {
	case err != nil:
		return 0, 0, 0, fmt.Errorf("looking at cadir %q: %w", d.path, err)
	case s.zero():
		return d.uid, d.gid, 0o750, nil
	case !s.directory():
		return 0, 0, 0, fmt.Errorf("cadir %q is no directory", d.path)
	}
	return int(s.uid), int(s.gid), s.mode, nil
}

// lock is a mutex whose wait can be given up.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

func (l lock) take(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	default:
	}
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l lock) release() { <-l }

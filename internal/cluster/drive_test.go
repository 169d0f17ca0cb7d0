package cluster_test

import (
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
)

// drive is a disk that outlives the processes that use it, and fails in the ways a
// disk does, but for hanging: in a bubble no time goes by while somebody waits for a
// mutex. What is on it is the old or the new content of a file, as store promises,
// and never a part.
type drive struct {
	mu    sync.Mutex
	rng   *rand.Rand
	files map[string][]byte
	fault fault
	fails int    // counts writes that failed
	mount *mount // of the process that runs; nil: none does
}

type fault int

const (
	whole  fault = iota
	full         // every write fails and changes nothing
	unsure       // every write fails, and its content is there all the same: only the last step failed
	torn         // the process is killed in the middle of the next write
)

func (f fault) String() string { return [...]string{"whole", "full", "unsure", "torn"}[f] }

var (
	errFull   = errors.New("no space left on device")
	errUnsure = errors.New("input/output error of the directory")
	errGone   = errors.New("the process is gone")
)

func newDrive(rng *rand.Rand) *drive {
	return &drive{rng: rng, files: make(map[string][]byte)}
}

// mount is a process's way to a drive. After its crash nothing gets through.
type mount struct {
	*drive
	dead   bool
	killed func() // called in the middle of a torn write; it must not block
}

func (d *drive) begin(killed func()) *mount {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mount = &mount{drive: d, killed: killed}
	return d.mount
}

func (m *mount) Read(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(data), nil
}

func (m *mount) Write(name string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	fails := m.fault
	if m.dead || fails == torn && m.rng.IntN(2) == 0 {
		fails = full
	}
	if fails != full {
		m.files[name] = slices.Clone(data)
	}
	if m.fault == torn && !m.dead {
		fails = torn
		m.fault, m.dead = whole, true
		m.killed()
	}
	if fails != whole {
		m.fails++
	}
	switch {
	case m.dead:
		return errGone
	case fails == full:
		return errFull
	case fails == unsure:
		return errUnsure
	}
	return nil
}

// set gives the drive another fault.
func (d *drive) set(f fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = f
}

// failures counts the writes that failed so far.
func (d *drive) failures() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fails
}

// die is the crash of the process.
func (d *drive) die() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mount.dead = true
}

// copy is a backup.
func (d *drive) copy() map[string][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.files) // a file's content is never changed in place
}

// replace puts other files on it, with no fault, while no process runs.
func (d *drive) replace(files map[string][]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files, d.fault, d.mount = make(map[string][]byte), whole, nil
	maps.Copy(d.files, files)
}

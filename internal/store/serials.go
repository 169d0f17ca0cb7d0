package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"sync"
	"time"
)

// serialsFile is the name of the file in the state directory.
const serialsFile = "serials.json"

// serialsVersion is the version of its format.
const serialsVersion = 1

// Serial is the SOA serial that a zone content was published under.
type Serial struct {
	Serial uint32 `json:"serial"`
	Hash   string `json:"hash"` // of the content
}

type serialsJSON struct {
	Version int               `json:"version"`
	Zones   map[string]Serial `json:"zones"`
}

// Newer reports whether serial a is newer than b (RFC 1982, section 3.2).
func Newer(a, b uint32) bool { return a != b && int32(a-b) > 0 }

// NextSerial is the rule for a zone's serial: unchanged while the content is,
// else one more, or the zone file's own where that is newer, and never 0. Without
// a past it begins at the time in seconds, which is ahead of what one change a
// second can have reached before a state directory was lost; unless the zone file
// has a newer one, such as a date, behind which nothing is known.
func NextSerial(past Serial, known bool, hash string, file uint32, now time.Time) uint32 {
	var next uint32
	switch {
	case known && past.Hash == hash:
		return past.Serial
	case known:
		next = past.Serial + 1
	default:
		next = uint32(now.Unix())
	}
	if Newer(file, next) {
		next = file
	}
	if next == 0 {
		next = 1
	}
	return next
}

// Serials gives out serials and remembers them, on disk if it has a directory.
// Safe for concurrent use.
type Serials struct {
	path      string                     // "" keeps them in memory
	writeFile func(string, []byte) error // WriteFile, but in tests

	mu      sync.Mutex
	zones   map[string]Serial
	version int           // of zones: counts changes
	written int           // the version on disk
	writing chan struct{} // closed when the write under way ends; nil if none is
	err     error         // of reading, for good, or of the newest write
	damaged bool
}

// OpenSerials reads the serials of a state directory; "" keeps them in memory
// alone. It always returns usable serials. With a file that cannot be read they
// begin anew, in memory alone, the file is left as it is, and Err says so.
func OpenSerials(dir string) *Serials {
	s := &Serials{zones: make(map[string]Serial), writeFile: WriteFile}
	if dir == "" {
		return s
	}
	s.path = filepath.Join(dir, serialsFile)
	data, err := ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s
	}
	var in serialsJSON
	if err == nil {
		err = json.Unmarshal(data, &in)
	}
	if err == nil && in.Version != serialsVersion {
		err = fmt.Errorf("format version %d: this release knows version %d", in.Version, serialsVersion)
	}
	for origin, z := range in.Zones {
		if err == nil && (z.Serial == 0 || z.Hash == "") {
			err = fmt.Errorf("zone %s has serial %d with hash %q: neither is ever written", origin, z.Serial, z.Hash)
		}
	}
	if err != nil {
		s.err = fmt.Errorf("reading %s: %w; serials are not durable until it is repaired or removed and the server restarted", s.path, err)
		s.damaged = true
		return s
	}
	maps.Copy(s.zones, in.Zones)
	return s
}

// UnusableSerials keeps serials in memory and gives err as the reason.
func UnusableSerials(err error) *Serials {
	return &Serials{zones: make(map[string]Serial), err: err}
}

// Damaged reports whether there is a file that could not be understood.
func (s *Serials) Damaged() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.damaged
}

// Wait returns when no write is under way, or false after patience.
func (s *Serials) Wait(patience time.Duration) (idle bool) {
	s.mu.Lock()
	writing := s.writing
	s.mu.Unlock()
	if writing == nil {
		return true
	}
	select {
	case <-writing:
		return true
	case <-time.After(patience):
		return false
	}
}

// Current returns the serial given out last for a zone, zero if none was.
func (s *Serials) Current(origin string) Serial {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.zones[origin]
}

// Err returns what keeps serials from being durable, nil if nothing does.
func (s *Serials) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Next gives a zone its serial for a content. It does not touch the disk; call
// Sync before the serial is seen by anyone.
func (s *Serials) Next(origin, hash string, file uint32, now time.Time) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	past, known := s.zones[origin]
	next := Serial{NextSerial(past, known, hash, file, now), hash}
	if !known || next != past {
		s.zones[origin] = next
		s.version++
	}
	return next.Serial
}

// Sync returns when everything given out is on disk, when it cannot be, or after
// patience: answers matter more than the disk, which may hang. The write goes on
// behind; then only a crash before its end could let a serial be used twice.
func (s *Serials) Sync(patience time.Duration) error {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	s.mu.Lock()
	want := s.version
	for s.path != "" && !s.damaged && s.written < want {
		if s.writing == nil {
			s.writing = make(chan struct{})
			go s.write()
		}
		writing := s.writing
		s.mu.Unlock()
		select {
		case <-writing:
		case <-timeout.C:
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.written < want && s.writing != nil {
				s.err = fmt.Errorf("writing %s takes longer than %v: not waiting for it", s.path, patience)
			}
			return s.err
		}
		s.mu.Lock()
		if s.err != nil {
			break
		}
	}
	defer s.mu.Unlock()
	return s.err
}

// write puts the newest serials on disk, once.
func (s *Serials) write() {
	s.mu.Lock()
	version, out := s.version, serialsJSON{serialsVersion, maps.Clone(s.zones)}
	s.mu.Unlock()
	data, err := json.MarshalIndent(out, "", "  ")
	if err == nil {
		err = s.writeFile(s.path, append(data, '\n'))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err = err; err == nil {
		s.written = version
	}
	close(s.writing)
	s.writing = nil
}

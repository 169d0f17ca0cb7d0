package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// serialsFile is the name of the file in the state directory.
const serialsFile = "serials.json"

// serialsVersion is the version of its format.
const serialsVersion = 1

// reserve is how many serials are reserved on disk at a time.
const reserve = 1000

// Serial is the SOA serial that a zone content was published under.
type Serial struct {
	Serial uint32 `json:"serial"`
	Hash   string `json:"hash"` // of the content
}

// zoneSerial is what is kept of a zone. Serials up to Reserved may have been
// published: on disk they are, before any of them is.
type zoneSerial struct {
	Serial
	Reserved uint32 `json:"reserved"`
}

type serialsJSON struct {
	Version int                   `json:"version"`
	Zones   map[string]zoneSerial `json:"zones"`
}

// Newer reports whether serial a is newer than b (RFC 1982, section 3.2).
func Newer(a, b uint32) bool { return a != b && int32(a-b) > 0 }

// maxAhead is how far ahead of ours a peer's serial may be and count.
const maxAhead = 1 << 30

// NextSerial is the rule for a zone's serial: unchanged while the content is,
// else one more, or the zone file's own where that is newer, and never 0. Without
// a past it begins at the time in seconds, which is ahead of what one change a
// second can have reached before a state directory was lost; unless the zone file
// has a newer one, such as a date, behind which nothing is known.
//
// peers are what other nodes have published for the zone. A secondary may ask any
// node, so equal content takes the newest serial that anyone gave it, other content
// one that is newer than all, and of two contents under one serial one moves on.
func NextSerial(past Serial, known bool, hash string, file uint32, now time.Time, peers []Serial) uint32 {
	// A serial that is not newer than ours, nor older by RFC 1982, compares with
	// nothing; and to be newer than one that is nearly so would mean to go back.
	if known {
		peers = slices.DeleteFunc(slices.Clone(peers), func(p Serial) bool {
			return p.Serial != past.Serial && !Newer(past.Serial, p.Serial) && p.Serial-past.Serial > maxAhead
		})
	}
	next := past.Serial
	if !known || past.Hash != hash {
		next++
		if !known {
			next = uint32(now.Unix())
		}
		if Newer(file, next) {
			next = file
		}
		for _, p := range peers {
			if !Newer(next, p.Serial) {
				next = p.Serial + 1
			}
		}
	}
	adopted := false
	for _, p := range peers {
		if p.Hash == hash && p.Serial != 0 && (known && Newer(p.Serial, past.Serial) || !known) && (!adopted || Newer(p.Serial, next)) {
			next, adopted = p.Serial, true
		}
	}
	for _, p := range peers {
		if p.Serial == next && p.Hash != hash && hash < p.Hash {
			for _, q := range peers {
				if Newer(q.Serial, next) {
					next = q.Serial
				}
			}
			next++
			break
		}
	}
	if next == 0 {
		next = 1
	}
	return next
}

// Serials gives out serials and remembers them, on disk if it has a directory.
// Safe for concurrent use.
//
// A changed verdict must not wait for a disk, and a serial must not be used
// twice. So serials are reserved on disk, many at a time, and given out from
// memory. After a clean end the file says which was the last; after a crash what
// was reserved counts as used, and the next one is beyond it.
type Serials struct {
	path      string                     // "" keeps them in memory
	writeFile func(string, []byte) error // WriteFile, but in tests

	mu      sync.Mutex
	zones   map[string]zoneSerial
	version int           // of the reservations: counts changes
	written int           // the version on disk
	writing chan struct{} // closed when the write under way ends; nil if none is
	err     error         // of reading, for good, or of the newest write
	damaged bool
}

// OpenSerials reads the serials of a state directory; "" keeps them in memory
// alone. It always returns usable serials. With a file that cannot be read they
// begin anew, in memory alone, the file is left as it is, and Err says so.
func OpenSerials(dir string) *Serials {
	s := &Serials{zones: make(map[string]zoneSerial), writeFile: WriteFile}
	if dir == "" {
		return s
	}
	s.path = filepath.Join(dir, serialsFile)
	data, err := ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s
	}
	zones, err := decodeSerials(data, err)
	if err != nil {
		s.err = fmt.Errorf("reading %s: %w; serials are not durable until it is repaired or removed and the server restarted", s.path, err)
		s.damaged = true
		return s
	}
	for origin, z := range zones {
		if z.Reserved != z.Serial.Serial { // it ended without Close
			z = zoneSerial{Serial{z.Reserved, ""}, z.Reserved}
		}
		s.zones[origin] = z
	}
	return s
}

func decodeSerials(data []byte, err error) (map[string]zoneSerial, error) {
	var in serialsJSON
	if err == nil {
		err = json.Unmarshal(data, &in)
	}
	if err != nil {
		return nil, err
	}
	if in.Version != serialsVersion {
		return nil, fmt.Errorf("format version %d: this release knows version %d", in.Version, serialsVersion)
	}
	for origin, z := range in.Zones {
		if z.Serial.Serial == 0 || z.Hash == "" || Newer(z.Serial.Serial, z.Reserved) {
			return nil, fmt.Errorf("zone %s has serial %d of %d with hash %q: that is never written", origin, z.Serial.Serial, z.Reserved, z.Hash)
		}
	}
	return in.Zones, nil
}

// UnusableSerials keeps serials in memory and gives err as the reason.
func UnusableSerials(err error) *Serials {
	return &Serials{zones: make(map[string]zoneSerial), err: err}
}

// Damaged reports whether there is a file that could not be understood.
func (s *Serials) Damaged() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.damaged
}

// Err returns what keeps serials from being durable, nil if nothing does.
func (s *Serials) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Current returns the serial given out last for a zone, zero if none was.
func (s *Serials) Current(origin string) Serial {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.zones[origin].Serial
}

// Next gives a zone its serial for a content, given what its peers have. It does
// not touch the disk; call Sync before the serial is seen by anyone.
func (s *Serials) Next(origin, hash string, file uint32, now time.Time, peers ...Serial) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	past, known := s.zones[origin]
	next := past
	next.Serial = Serial{NextSerial(past.Serial, known, hash, file, now, peers), hash}
	// Also where nothing is in reserve: the next change must not wait.
	if !known || !Newer(past.Reserved, next.Serial.Serial) {
		next.Reserved = next.Serial.Serial + reserve
		s.version++
	}
	s.zones[origin] = next
	return next.Serial.Serial
}

// Sync returns when everything given out is reserved on disk, which it nearly
// always is already, when it cannot be, or after patience: answers matter more
// than the disk, which may hang. The write goes on behind; then only a crash
// before its end could let a serial be used twice.
func (s *Serials) Sync(patience time.Duration) error {
	s.mu.Lock()
	if s.path == "" || s.damaged || s.written >= s.version {
		defer s.mu.Unlock()
		return s.err
	}
	want := s.version
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for s.written < want {
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

// Close gives back what is reserved and not used, and waits for that to be on
// disk, for patience. Whoever goes on with s has to reserve again, and does.
func (s *Serials) Close(patience time.Duration) (err error) {
	s.mu.Lock()
	for origin, z := range s.zones {
		if z.Reserved != z.Serial.Serial {
			z.Reserved = z.Serial.Serial
			s.zones[origin] = z
			s.version++
		}
	}
	s.mu.Unlock()
	return s.Sync(patience)
}

// Idle reports whether no write is under way.
func (s *Serials) Idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writing == nil
}

// write puts the newest serials on disk, once.
func (s *Serials) write() {
	s.mu.Lock()
	version := s.version
	data, err := json.MarshalIndent(serialsJSON{serialsVersion, s.zones}, "", "  ")
	s.mu.Unlock()
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

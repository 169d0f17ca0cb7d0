package cluster

import (
	"maps"
	"sync"
	"time"
)

// sparse is a log that says the same kind of thing once a minute at most, because
// what comes from outside may come often. What is refused is counted each time.
type sparse struct {
	Logger
	mu     sync.Mutex
	last   map[string]time.Time
	silent map[string]int
	count  map[string]uint64
}

const sparseEvery = time.Minute

func newSparse(l Logger) *sparse {
	return &sparse{Logger: l, last: make(map[string]time.Time), silent: make(map[string]int), count: make(map[string]uint64)}
}

// due reports whether something of kind may be said now.
func (s *sparse) due(kind string) (also int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if last, ok := s.last[kind]; ok && now.Sub(last) < sparseEvery && !now.Before(last) {
		s.silent[kind]++
		return 0, false
	}
	also = s.silent[kind]
	s.last[kind], s.silent[kind] = now, 0
	return also, true
}

// Warningf warns of something of kind.
func (s *sparse) Warningf(kind, format string, v ...any) {
	if also, ok := s.due(kind); ok {
		if also > 0 {
			format += " (and %d more like it)"
			v = append(v, also)
		}
		s.Logger.Warningf(format, v...)
	}
}

// Refused counts and warns of something of kind that was refused.
func (s *sparse) Refused(kind, format string, v ...any) {
	s.mu.Lock()
	s.count[kind]++
	s.mu.Unlock()
	s.Warningf("refused "+kind, format, v...)
}

// counts returns how often what was refused, by kind.
func (s *sparse) counts() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.count)
}

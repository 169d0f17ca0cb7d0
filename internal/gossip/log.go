package gossip

import (
	"strings"
	"sync"
	"time"
)

// silence is a Logger that says nothing.
type silence struct{}

func (silence) Debugf(string, ...any)   {}
func (silence) Infof(string, ...any)    {}
func (silence) Warningf(string, ...any) {}
func (silence) Errorf(string, ...any)   {}

// limiter lets each key pass once an interval. Others decide what is logged about
// them, and how often: the log must not be theirs to fill.
type limiter struct {
	every time.Duration
	mu    sync.Mutex
	last  map[string]time.Time
}

// maxLimited bounds a limiter's memory. When it is full of keys all of which are
// still held back, new ones are held back too.
const maxLimited = 1024

func newLimiter(every time.Duration) *limiter {
	return &limiter{every: every, last: map[string]time.Time{}}
}

func (l *limiter) allow(key string) bool {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if t, ok := l.last[key]; ok && now.Sub(t) < l.every {
		return false
	}
	if len(l.last) >= maxLimited {
		for k, t := range l.last {
			if now.Sub(t) >= l.every {
				delete(l.last, k)
			}
		}
		if len(l.last) >= maxLimited {
			return false
		}
	}
	l.last[key] = now
	return true
}

// logWriter takes memberlist's lines, "[LEVEL] memberlist: text", to a Logger.
// Warnings and errors of a kind pass once in ten seconds.
type logWriter struct {
	log   Logger
	count *counters
	limit *limiter
}

func newLogWriter(l Logger, count *counters) *logWriter {
	return &logWriter{log: l, count: count, limit: newLimiter(10 * time.Second)}
}

// reported are memberlist's lines about what the pool says itself.
var reported = []string{"ignoring alive message for", "Conflicting address for", "Failed to resolve", "failed to join"}

// unreadable are its lines about what no key opens, which it tells in no other
// way: packets, streams, and what is not encrypted though it should be.
var unreadable = []string{"Decrypt packet failed", "no installed keys could decrypt", "remote state is not encrypted", "encrypted and encryption is not configured", "unsupported encryption version", "too small to decrypt"}

// Write is called with one line at a time by log.Logger, which holds a lock.
func (w *logWriter) Write(line []byte) (int, error) {
	level, text, ok := strings.Cut(strings.TrimSpace(string(line)), "] ")
	if !ok {
		level, text = "", string(line)
	}
	level = strings.TrimPrefix(level, "[")
	text = strings.TrimPrefix(strings.TrimSpace(text), "memberlist: ")
	if level == "ERR" && containsAny(text, unreadable) {
		w.count.undecipherable.Add(1)
	}
	switch {
	case level == "DEBUG":
		w.log.Debugf("memberlist: %s", text)
	case containsAny(text, reported):
	case level == "INFO":
		w.log.Infof("memberlist: %s", text)
	case !w.limit.allow(kind(text)):
	case level == "WARN" && strings.HasPrefix(text, "Refuting"): // after every restart
		w.log.Infof("memberlist: %s", text)
	case level == "WARN":
		w.log.Warningf("memberlist: %s", text)
	default:
		w.log.Errorf("memberlist: %s", text)
	}
	return len(line), nil
}

func containsAny(s string, parts []string) bool {
	for _, p := range parts {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}

// kind is the beginning of a line, up to where it begins to tell of whom.
func kind(text string) string {
	if i := strings.IndexAny(text, ":'\"([0123456789"); i > 0 {
		text = text[:i]
	}
	return text[:min(len(text), 60)]
}

package admin

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/time/rate"
)

// Warnings that strangers can cause are bounded, so that a flood cannot fill the
// disk: a few at once and then one in ten seconds for each of them, and so many for
// all of them together.
const (
	strangerEvery = 10 * time.Second
	strangerBurst = 5
	allPerSecond  = 10
	allBurst      = 100
	maxStrangers  = 1024
)

// quietLog is a log that strangers cannot fill.
type quietLog struct {
	Logger

	mu        sync.Mutex
	strangers map[string]*stranger
	all       *rate.Limiter
	lost      int // since the last line that came through all
}

type stranger struct {
	limiter *rate.Limiter
	lost    int // lines since the last one
}

func newQuietLog(l Logger) *quietLog {
	return &quietLog{Logger: l, strangers: make(map[string]*stranger), all: rate.NewLimiter(allPerSecond, allBurst)}
}

// warn writes a line that who has caused, unless that one had its share.
func (l *quietLog) warn(who, format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.strangers[who]
	if s == nil {
		if len(l.strangers) >= maxStrangers {
			clear(l.strangers) // the bound for all of them holds on
		}
		s = &stranger{limiter: rate.NewLimiter(rate.Every(strangerEvery), strangerBurst)}
		l.strangers[who] = s
	}
	switch {
	case !s.limiter.Allow():
		s.lost++
		return
	case !l.all.Allow():
		l.lost++
		return
	}
	line := oneLine(fmt.Sprintf(format, v...))
	if n := s.lost + l.lost; n > 0 {
		line += fmt.Sprintf(" (and %d lines like it were left out)", n)
		s.lost, l.lost = 0, 0
	}
	l.Warningf("%s", line)
}

// oneLine makes text that may have come from a stranger fit for a log.
func oneLine(text string) string {
	const most = 1000
	if len(text) > most {
		text = text[:most] + "..."
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return '?'
	}, text)
}

// writer takes the lines of net/http, which has no levels: failed handshakes, mostly.
func (l *quietLog) writer() io.Writer { return httpLog{l} }

type httpLog struct{ log *quietLog }

func (w httpLog) Write(line []byte) (int, error) {
	w.log.warn("net/http", "admin: %s", bytes.TrimSpace(line))
	return len(line), nil
}

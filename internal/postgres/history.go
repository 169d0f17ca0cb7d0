package postgres

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// branch is one timeline of a history and where it ends: the last of a history has not
// ended, and Until is how far it has been written.
type branch struct {
	Timeline uint32
	Until    evidence.LSN
}

// history is how a server's log came to be, oldest branch first.
type history []branch

// maxHistory bounds the branches of a history: it grows by one with each promotion.
const maxHistory = 10000

// parseHistory understands a timeline's history file ("1\t0/3000148\treason" a line,
// timeline.c) and appends the timeline itself, written until end.
func parseHistory(file string, timeline uint32, end evidence.LSN) (history, error) {
	var h history
	for line := range strings.SplitSeq(file, "\n") {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) < 2 || len(h) == maxHistory {
			return nil, fmt.Errorf("history of timeline %d: the line %q is none of \"TIMELINE\tLSN\treason\"", timeline, clip(line))
		}
		tli, err := strconv.ParseUint(f[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("history of timeline %d: %w", timeline, err)
		}
		at, err := parseLSN(f[1])
		if err != nil {
			return nil, fmt.Errorf("history of timeline %d: %w", timeline, err)
		}
		if n := len(h); n > 0 && (h[n-1].Timeline >= uint32(tli) || h[n-1].Until > at) || uint32(tli) >= timeline {
			return nil, fmt.Errorf("history of timeline %d: timelines have to grow, and %d comes too late", timeline, tli)
		}
		h = append(h, branch{uint32(tli), at})
	}
	return append(h, branch{timeline, end}), nil
}

// end is where the history's last branch has been written to.
func (h history) end() branch { return h[len(h)-1] }

// fork is where local and source part: up to there their logs are the same. follows
// says that local has nothing behind it, so that it can stream from source as it is;
// so it can if both are on one timeline, whoever is ahead when they are looked at.
// It is pg_rewind's rule (findCommonAncestorTimeline, PostgreSQL 15).
func fork(local, source history) (at branch, follows bool) {
	var begin [2]evidence.LSN
	common := -1
	for i := 0; i < len(local) && i < len(source); i++ {
		if local[i].Timeline != source[i].Timeline || begin[0] != begin[1] {
			break
		}
		common, begin = i, [2]evidence.LSN{local[i].Until, source[i].Until}
	}
	if common < 0 {
		return branch{}, false
	}
	at = branch{local[common].Timeline, min(local[common].Until, source[common].Until)}
	return at, common == len(local)-1 && (common == len(source)-1 || local[common].Until <= source[common].Until)
}

// before is where a timeline of the history left the one before it.
func (h history) before(timeline uint32) branch {
	for i := 1; i < len(h); i++ {
		if h[i].Timeline == timeline {
			return h[i-1]
		}
	}
	return branch{}
}

// String is for people: "timeline 2 from 0/3000148 on, now at 0/5000000".
func (h history) String() string {
	if len(h) == 0 {
		return "no timeline"
	}
	last := h.end()
	if len(h) == 1 {
		return fmt.Sprintf("timeline %d, at %s", last.Timeline, formatLSN(last.Until))
	}
	return fmt.Sprintf("timeline %d from %s on, at %s", last.Timeline, formatLSN(h[len(h)-2].Until), formatLSN(last.Until))
}

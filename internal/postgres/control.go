package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// States of a cluster, as pg_controldata names them (dbState in pg_controldata.c).
const (
	shutDown           = "shut down"
	shutDownInRecovery = "shut down in recovery"
	inArchiveRecovery  = "in archive recovery"
)

// control is what is of use in a stopped server's control file.
type control struct {
	state      string
	system     string
	checkpoint evidence.LSN // where the latest checkpoint's record begins
	timeline   uint32       // of it
	// minRecovery is how far a server that was in recovery had come; 0 of one that was not.
	minRecovery         evidence.LSN
	minRecoveryTimeline uint32
	hints               bool // wal_log_hints or data checksums: pg_rewind is possible
	segment, page       uint64
}

// readControl runs pg_controldata.
func (s *Service) readControl(ctx context.Context) (*control, error) {
	if _, err := os.Stat(filepath.Join(s.cfg.Data, "PG_VERSION")); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is no data directory of PostgreSQL: it has no PG_VERSION", s.cfg.Data)
		}
		return nil, fmt.Errorf("data directory: %w", err)
	}
	out, err := s.account.run(ctx, filepath.Join(s.cfg.BinDir, "pg_controldata"), "-D", s.cfg.Data)
	if err != nil {
		return nil, err
	}
	c, err := parseControl(out)
	if err != nil {
		return nil, fmt.Errorf("pg_controldata of %s: %w", s.cfg.Data, err)
	}
	return c, nil
}

// parseControl understands pg_controldata's output in the C locale.
func parseControl(out string) (*control, error) {
	if strings.Contains(out, "WARNING: Calculated CRC checksum does not match") {
		return nil, errors.New("its control file is damaged: the checksum is wrong")
	}
	values := map[string]string{}
	for line := range strings.SplitSeq(out, "\n") {
		if k, v, ok := strings.Cut(line, ":"); ok {
			values[k] = strings.TrimSpace(v)
		}
	}
	var errs []error
	get := func(key string) string {
		v, ok := values[key]
		if !ok {
			errs = append(errs, fmt.Errorf("no %q", key))
		}
		return v
	}
	number := func(key string, bits int) uint64 {
		v := get(key)
		n, err := strconv.ParseUint(v, 10, bits)
		if err != nil && v != "" {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
		return n
	}
	position := func(key string) evidence.LSN {
		v := get(key)
		l, err := parseLSN(v)
		if err != nil && v != "" {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
		return l
	}
	c := &control{
		state:               get("Database cluster state"),
		system:              get("Database system identifier"),
		checkpoint:          position("Latest checkpoint location"),
		timeline:            uint32(number("Latest checkpoint's TimeLineID", 32)),
		minRecovery:         position("Minimum recovery ending location"),
		minRecoveryTimeline: uint32(number("Min recovery ending loc's timeline", 32)),
		hints:               get("wal_log_hints setting") == "on" || number("Data page checksum version", 32) != 0,
		segment:             number("Bytes per WAL segment", 64),
		page:                number("WAL block size", 64),
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if c.segment == 0 || c.page == 0 {
		return nil, errors.New("the sizes of a WAL segment and block are 0")
	}
	return c, nil
}

// clean: the server ended in good order, so that it is known where its log ends.
func (c *control) clean() bool { return c.state == shutDown || c.state == shutDownInRecovery }

// standby: it was in recovery.
func (c *control) standby() bool {
	return c.state == shutDownInRecovery || c.state == inArchiveRecovery
}

// end is where the log of a clean server ends, and on which timeline; of one that was
// in recovery, how far it has surely come.
func (c *control) end() (evidence.LSN, uint32) {
	if c.standby() {
		if c.minRecovery > c.checkpoint {
			return c.minRecovery, c.minRecoveryTimeline
		}
		return c.checkpoint, c.timeline
	}
	return c.afterCheckpoint(), c.timeline
}

// checkpointRecord is the size of a checkpoint's record in the log, the same since
// PostgreSQL 9.6: xlogrecord.h's 24 bytes of header and 2 for short data, and the 88 of
// a CheckPoint.
const checkpointRecord = 24 + 2 + 88

// afterCheckpoint is where the shutdown checkpoint, the last record of a primary that
// was shut down, ends: what a standby has received when it has everything.
func (c *control) afterCheckpoint() evidence.LSN {
	at, rest := uint64(c.checkpoint), uint64(checkpointRecord)
	for rest > 0 {
		room := c.page - at%c.page
		if room >= rest {
			at += rest
			break
		}
		at, rest = at+room, rest-room
		// A page begins with a header, a segment with a longer one (xlog_internal.h).
		if at%c.segment == 0 {
			at += 40
		} else {
			at += 24
		}
	}
	return evidence.LSN((at + 7) &^ 7)
}

package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// answer is what the source said when it was asked.
type answer struct {
	asked   time.Time // before the question was sent, by this host's clock
	system  string
	history history // its last branch is written, and flushed, until what was said
	standby bool    // it is in recovery, and knows of what it received only
	// origin is of the timeline that was asked for; nil if it has none of the number and
	// place, or has not said because of originErr.
	origin    *origin
	originErr error
}

// upstream asks the source how far it has flushed its log, over a replication
// connection that it keeps: who may stream may ask that. One goroutine at a time.
type upstream struct {
	source  string // "" asks nobody
	account account

	conn      *pgconn.PgConn
	histories map[uint32]string // files of the source's timelines, which never change
	asked     *origin           // the source's of the timeline that was asked for last

	originNext time.Time // not before that is asked for one
	originErr  error     // why

	pause time.Duration // after a failure
	next  time.Time     // not before that
	err   error         // the last one
}

// Pauses between questions to a source that does not answer: a look must not take
// long each time.
const (
	firstPause = time.Second
	lastPause  = 10 * time.Second
)

// answerAge is how old an answer may be to be compared with.
const answerAge = 30 * time.Second

var errNoSource = errors.New("source is not set: who the camaster's server is is not known here")

// ask asks. While the source is known not to answer it says so without trying.
func (u *upstream) ask(ctx context.Context, origins []*origin) (answer, error) {
	if u.source == "" {
		return answer{}, errNoSource
	}
	if u.err != nil && time.Now().Before(u.next) {
		return answer{}, u.err
	}
	return u.askNow(ctx, origins)
}

// askNow asks, whatever was before.
func (u *upstream) askNow(ctx context.Context, origins []*origin) (answer, error) {
	if u.source == "" {
		return answer{}, errNoSource
	}
	a, err := u.identify(ctx, origins)
	if err != nil && u.conn != nil {
		u.close()
		if ctx.Err() == nil { // the kept connection was from another time
			a, err = u.identify(ctx, origins)
		}
	}
	if err != nil {
		u.close()
		u.pause = min(max(2*u.pause, firstPause), lastPause)
		u.next = time.Now().Add(u.pause)
		u.err = fmt.Errorf("asking the source: %w", err)
		return answer{}, u.err
	}
	u.pause, u.err = 0, nil
	return a, nil
}

// identify asks who the source is, and how the newest common one of some timelines began
// there. What it says is good without the latter.
func (u *upstream) identify(ctx context.Context, origins []*origin) (answer, error) {
	if u.conn == nil {
		cfg, err := sourceConfig(u.source, u.account)
		if err != nil {
			return answer{}, err
		}
		cfg.RuntimeParams["replication"] = "true"
		if u.conn, err = pgconn.ConnectConfig(ctx, cfg); err != nil {
			u.conn = nil
			return answer{}, err
		}
	}
	a := answer{asked: time.Now()}
	row, err := u.row(ctx, "IDENTIFY_SYSTEM", 3)
	if err != nil {
		return a, err
	}
	a.system = row[0]
	timeline, err := strconv.ParseUint(row[1], 10, 32)
	if err != nil {
		return a, fmt.Errorf("IDENTIFY_SYSTEM: timeline: %w", err)
	}
	flushed, err := parseLSN(row[2])
	if err != nil {
		return a, fmt.Errorf("IDENTIFY_SYSTEM: %w", err)
	}
	switch u.conn.ParameterStatus("in_hot_standby") {
	case "on":
		a.standby = true
	case "off":
	default: // before PostgreSQL 14
		row, err := u.row(ctx, "SHOW transaction_read_only", 1)
		if err != nil {
			return a, err
		}
		a.standby = row[0] != "off"
	}
	file := ""
	if timeline > 1 {
		var ok bool
		if file, ok = u.histories[uint32(timeline)]; !ok {
			row, err := u.row(ctx, fmt.Sprintf("TIMELINE_HISTORY %d", timeline), 2)
			if err != nil {
				return a, err
			}
			file = row[1]
			if u.histories == nil || len(u.histories) > 8 {
				u.histories = map[uint32]string{}
			}
			u.histories[uint32(timeline)] = file
		}
	}
	if a.history, err = parseHistory(file, uint32(timeline), flushed); err != nil {
		return a, err
	}
	if !a.standby {
		a.origin, a.originErr = u.origin(ctx, origins, a.history)
	}
	return a, nil
}

// row is the first row of a command's result.
func (u *upstream) row(ctx context.Context, command string, columns int) ([]string, error) {
	results, err := u.conn.Exec(ctx, command).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < columns {
		return nil, fmt.Errorf("%s: not one row of %d columns", command, columns)
	}
	row := make([]string, columns)
	for i := range row {
		row[i] = string(results[0].Rows[0][i])
	}
	return row, nil
}

// close gives the connection up.
func (u *upstream) close() {
	if u.conn != nil {
		closeConn(u.conn)
		u.conn = nil
	}
	u.histories, u.asked, u.originNext = nil, nil, time.Time{} // another server may answer next time
}

// closeConn says goodbye, but does not wait for a server that does not listen.
func closeConn(c *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = c.Close(ctx) // it is closed in any case
}

// libpqOnly are what libpq knows and pgx would send to the server.
var libpqOnly = map[string]bool{
	"keepalives": true, "keepalives_idle": true, "keepalives_interval": true, "keepalives_count": true, "tcp_user_timeout": true,
	"gssencmode": true, "krbsrvname": true, "gsslib": true, "gssdelegation": true, "channel_binding": true, "sslcompression": true,
	"sslcrl": true, "sslcrldir": true, "requirepeer": true, "requiressl": true, "fallback_application_name": true,
	"ssl_min_protocol_version": true, "ssl_max_protocol_version": true, "load_balance_hosts": true, "require_auth": true, "sslcertmode": true,
}

// sourceConfig is how pgx connects to the source. The passfile is that of the server's
// user, as it is for the walreceiver.
func sourceConfig(source string, a account) (*pgconn.Config, error) {
	c, err := parseSource(source)
	if err != nil {
		return nil, err
	}
	if c.get("passfile") == "" && a.home != "" {
		c = c.with("passfile", filepath.Join(a.home, ".pgpass"))
	}
	if c.get("hostaddr") != "" {
		c = c.with("host", c.get("hostaddr")).without("hostaddr")
	}
	cfg, err := pgconn.ParseConfig(c.with("application_name", "puppetsrv-member").String())
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(cfg.RuntimeParams, func(k, _ string) bool { return libpqOnly[k] })
	return cfg, nil
}

// position is for people.
func position(l evidence.LSN, timeline uint32) string {
	return fmt.Sprintf("%s on timeline %d", formatLSN(l), timeline)
}

// ask asks the source, if this server follows or may have to, and takes in what it says.
// It is no part of a look, and holds none up: a source that is cut off answers late, and
// just then a failover must not wait for it.
func (s *Service) ask(ctx context.Context) {
	if !s.asking.TryLock() {
		return // somebody asks just now
	}
	defer s.asking.Unlock()
	s.mu.Lock()
	follower := s.follower
	s.mu.Unlock()
	if !follower {
		s.upstream.close()
		s.heard(nil)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.LookTimeout/2)
	defer cancel()
	if a, err := s.upstream.ask(ctx, s.origins()); err == nil && !a.standby {
		s.heard(&a)
	} else {
		s.heard(nil)
	}
}

// heard takes in the source's last answer; nil if there is none.
func (s *Service) heard(a *answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = a
	if a == nil || a.system != s.system {
		return
	}
	end := a.history.end()
	if s.known.hear(a.system, end.Timeline, end.Until, time.Now()) {
		s.dirty = true
	}
	s.known.note(mark{a.asked, end.Timeline, end.Until})
}

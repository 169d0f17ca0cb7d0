package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// connect opens a connection over the local socket. The caller closes it.
func (s *Service) connect(ctx context.Context, dir string) (*pgx.Conn, error) {
	c := conninfo{
		{"host", dir}, {"port", strconv.Itoa(int(s.cfg.Port))}, {"user", s.cfg.User}, {"database", s.cfg.Database},
		{"sslmode", "disable"}, {"target_session_attrs", "any"}, {"application_name", "puppetsrv-member"},
		{"passfile", filepath.Join(s.account.home, ".pgpass")},
	}
	cfg, err := pgx.ParseConfig(c.String())
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // nothing is left behind on the server
	cfg.DialFunc = s.account.dial
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err // it names socket, user and database
	}
	return conn, nil
}

// withConn runs f with a connection of its own.
func (s *Service) withConn(ctx context.Context, f func(*pgx.Conn) error) error {
	conn, err := s.connect(ctx, s.cfg.Socket)
	if err != nil {
		return err
	}
	defer closeConn(conn.PgConn())
	return f(conn)
}

// starting reports that a server is there and cannot be connected to yet, or no longer
// (57P03, cannot_connect_now).
func starting(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "57P03"
}

// poll calls f until it is done or fails, or ctx ends: then the error says what was
// waited for, and what f said last.
func poll(ctx context.Context, what string, f func(context.Context) (done bool, state string, err error)) error {
	const pause = 50 * time.Millisecond
	tick := time.NewTimer(0)
	defer tick.Stop()
	state := ""
	for {
		select {
		case <-ctx.Done():
			return waited(ctx, what, state)
		case <-tick.C:
		}
		done, now, err := f(ctx)
		if ctx.Err() != nil && !done {
			return waited(ctx, what, state)
		}
		if done || err != nil {
			return err
		}
		state = now
		tick.Reset(pause)
	}
}

func waited(ctx context.Context, what, state string) error {
	if state != "" {
		state = ": " + oneLine(state)
	}
	return fmt.Errorf("waiting until %s: %w%s", what, context.Cause(ctx), state)
}

// oneLine is s without line breaks, as pgx's errors have them.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// sameFile reports whether two paths are one file.
func sameFile(a, b string) bool {
	fa, err1 := os.Stat(a)
	fb, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(fa, fb)
}

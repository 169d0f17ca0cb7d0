//go:build linux

package stack

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5"
)

// rowTime is how long one row, or a connection, may take.
const rowTime = time.Second

// database connects from a host to the PostgreSQL at an address.
func (h *Host) database(ctx context.Context, address netip.Addr) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig("host=" + address.String() + " port=5432 user=replicator dbname=postgres sslmode=disable connect_timeout=1 target_session_attrs=any")
	if err != nil {
		return nil, err
	}
	cfg.LookupFunc = func(context.Context, string) ([]string, error) { return []string{address.String()}, nil }
	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		return h.Dial(ctx, network, address)
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	return pgx.ConnectConfig(ctx, cfg)
}

// MakeRows makes the table of rows, empty, on the host's own PostgreSQL.
func (h *Host) MakeRows(ctx context.Context) error {
	_, err := h.SQL(ctx, "postgres", "DROP TABLE IF EXISTS lab_rows; CREATE TABLE lab_rows (id bigint PRIMARY KEY)")
	return err
}

// WriteRow writes one row over the network to a host's PostgreSQL, by a connection of its
// own. Without an error it is committed.
func (h *Host) WriteRow(ctx context.Context, to *Host, id int64) error {
	ctx, cancel := context.WithTimeout(ctx, rowTime)
	defer cancel()
	c, err := h.database(ctx, to.Addr)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, fmt.Sprintf("INSERT INTO lab_rows VALUES (%d)", id))
	return err
}

// Rows are those that the host's own PostgreSQL has.
func (h *Host) Rows(ctx context.Context) (map[int64]bool, error) {
	c, err := h.database(ctx, h.Addr)
	if err != nil {
		return nil, err
	}
	defer c.Close(ctx)
	rows, err := c.Query(ctx, "SELECT id FROM lab_rows")
	if err != nil {
		return nil, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	has := make(map[int64]bool)
	for _, id := range ids {
		has[id] = true
	}
	return has, err
}

//go:build linux

package stack

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// data is PGDATA on each host that may become camaster.
const data = "/var/lib/postgresql/data"

// postgresBin is where PostgreSQL's programs are.
func postgresBin() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is right
	if len(found) == 0 {
		return "", fmt.Errorf("PostgreSQL's server is not installed")
	}
	return filepath.Dir(found[len(found)-1]), nil
}

// as is a command of another user.
func as(user string, args ...string) []string {
	return append([]string{"setpriv", "--reuid=" + user, "--regid=" + user, "--init-groups"}, args...)
}

// makePrimary makes PostgreSQL with PuppetDB's database, and starts it.
func (h *Host) makePrimary(ctx context.Context) error {
	bin, err := postgresBin()
	if err != nil {
		return err
	}
	if err := h.Run(ctx, as("postgres", filepath.Join(bin, "initdb"), "-D", data, "-A", "peer", "--no-locale", "-E", "UTF8", "--no-sync")...).Error(); err != nil {
		return err
	}
	for _, name := range []string{"postgresql.conf", "pg_hba.conf"} {
		if err := h.render(name, data+"/"+name, 0o600, "postgres", nil); err != nil {
			return err
		}
	}
	if err := h.Service(ctx, "start", PostgreSQL); err != nil {
		return err
	}
	for _, sql := range []string{
		"CREATE ROLE replicator LOGIN REPLICATION SUPERUSER", // pg_rewind reads all files
		"CREATE ROLE puppetdb LOGIN",
		"CREATE DATABASE puppetdb OWNER puppetdb",
		"\\c puppetdb\nCREATE EXTENSION pg_trgm",
	} {
		if _, err := h.SQL(ctx, "postgres", sql); err != nil {
			return err
		}
	}
	return nil
}

// makeStandby copies the primary, and starts the copy.
func (h *Host) makeStandby(ctx context.Context, primary *Host) error {
	bin, err := postgresBin()
	if err != nil {
		return err
	}
	if err := h.Run(ctx, as("postgres", filepath.Join(bin, "pg_basebackup"), "-D", data, "-h", primary.Addr.String(), "-U", "replicator", "-X", "stream", "-c", "fast", "--no-sync")...).Error(); err != nil {
		return err
	}
	if err := h.Write(data+"/postgresql.auto.conf", "primary_conninfo = 'host="+Camaster+" user=replicator connect_timeout=2'\n", 0o600, "postgres"); err != nil {
		return err
	}
	if err := h.Write(data+"/standby.signal", "", 0o600, "postgres"); err != nil {
		return err
	}
	return h.Service(ctx, "start", PostgreSQL)
}

// SQL asks the host's PostgreSQL as its superuser over the local socket. The answer has no
// header, and fields are parted by |.
func (h *Host) SQL(ctx context.Context, database, sql string) (string, error) {
	psql := as("postgres", "sh", "-c", `printf '%s\n' "$1" | psql -X -q -A -t -v ON_ERROR_STOP=1 -h /run/postgresql -d "$2"`, "sh", sql, database)
	r := h.Run(ctx, psql...)
	return strings.TrimSpace(r.Out), r.Error()
}

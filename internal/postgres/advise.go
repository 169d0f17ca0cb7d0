package postgres

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// Advise says which settings of the running server make a failover or a rejoin worse
// than it could be, one sentence each, with what would be right.
func (s *Service) Advise(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.LookTimeout)
	defer cancel()
	set := map[string]string{}
	slots, standby := 0, false
	err := s.withConn(ctx, func(c *pgx.Conn) error {
		rows, err := c.Query(ctx, "SELECT name, setting FROM pg_settings")
		if err != nil {
			return err
		}
		var name, value string
		if _, err := pgx.ForEachRow(rows, []any{&name, &value}, func() error { set[name] = value; return nil }); err != nil {
			return err
		}
		return c.QueryRow(ctx, "SELECT count(*), pg_is_in_recovery() FROM pg_replication_slots WHERE slot_type = 'physical'").Scan(&slots, &standby)
	})
	if err != nil {
		return nil, fmt.Errorf("looking at PostgreSQL's settings: %w", err)
	}
	var out []string
	say := func(format string, v ...any) { out = append(out, fmt.Sprintf(format, v...)) }
	if set["wal_level"] == "minimal" {
		say("wal_level is minimal: a standby, and a closed server, need replica")
	}
	if set["hot_standby"] == "off" {
		say("hot_standby is off: a standby cannot be seen or promoted over its socket; set it on")
	}
	if set["fsync"] == "off" || set["full_page_writes"] == "off" {
		say("fsync or full_page_writes is off: a crash can damage the data; set them on")
	}
	if set["synchronous_commit"] == "off" {
		say("synchronous_commit is off: a failover loses more than it says, what was committed and not yet flushed; set it on")
	}
	if set["wal_log_hints"] == "off" && set["data_checksums"] == "off" {
		say("wal_log_hints and data_checksums are off: pg_rewind is not possible, and a rejoin copies everything; set wal_log_hints = on")
	}
	if keep, err := strconv.Atoi(set["wal_keep_size"]); err == nil && keep < 256 && slots == 0 {
		say("wal_keep_size is %d MB and there is no replication slot: a standby that is away for long, and pg_rewind, may not find the log any more; set 256MB or more", keep)
	}
	if v, ok := set["recovery_target_timeline"]; ok && v != "latest" {
		say("recovery_target_timeline is %q: a standby does not follow a promotion; set latest", v)
	}
	if set["restore_command"] != "" {
		say("restore_command is set: recover a crashed former primary by rejoin only, as an archive that it shares brings it the newer timeline too early")
	}
	if v := set["promote_trigger_file"]; s.cfg.Promote == PromoteTrigger && v != s.cfg.TriggerFile {
		say("promote_trigger_file is %q, and trigger is %q: they have to be the same (PostgreSQL 16 has none: use pg_promote)", v, s.cfg.TriggerFile)
	}
	if set["synchronous_standby_names"] != "" {
		say("synchronous_standby_names is %q: with no such standby a commit waits for ever, also after a failover", set["synchronous_standby_names"])
	}
	if set["default_transaction_read_only"] == "on" && !standby {
		say("default_transaction_read_only is on: the server is fenced")
	}
	if s.cfg.Source == "" {
		say("source is not set: the time of what a failover loses is by the primary's clock, and old while it is idle; and nothing rejoins")
	}
	return out, nil
}

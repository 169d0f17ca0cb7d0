package member

import (
	"context"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/postgres"
	"github.com/puppetsrv/puppetsrv/internal/settings"
	"github.com/puppetsrv/puppetsrv/internal/store"
)

func (m *Member) buildPostgreSQL(s *settings.Settings, disk store.Dir) error {
	c := s.PostgresConfig()
	c.Disk = disk
	service, err := postgres.NewService(c)
	m.postgres = service
	return err
}

func (m *Member) gatherPostgreSQL(ctx context.Context) *evidence.PostgreSQL {
	e := m.postgres.Evidence(ctx)
	return &e
}

// runHeard has a standby know how far the camaster has written, also while nothing is
// streamed: what is lost in a failover can only be told by who knew that.
func (m *Member) runHeard() {
	for sleep(m.ctx, m.settings().Interval) {
		host := m.camaster()
		if host == "" || host == m.settings().Certname {
			continue
		}
		state, err := m.ask(m.ctx, host)
		if err != nil {
			continue // it is lost, or cut off: the nodes say so
		}
		if p := state.PostgreSQL; p != nil && p.Role == "primary" {
			m.postgres.Heard(p.System, p.Timeline, p.Written)
		}
	}
}

// closeServices ends what the services hold open. They stay as they are.
func (m *Member) closeServices() {
	if m.postgres != nil {
		if err := m.postgres.Close(); err != nil {
			m.log.Warningf("PostgreSQL: %s", err)
		}
	}
}

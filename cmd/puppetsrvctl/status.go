package main

import (
	"fmt"
	"strings"

	"github.com/puppetsrv/puppetsrv/cmd/puppetsrvctl/report"
	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/release"
)

type statusCommand struct {
	Check bool `help:"Exit with 7 if there is a problem of severity error, or the nodes disagree."`
}

func (c *statusCommand) Run(s *session) error {
	client, err := s.ask()
	if err != nil {
		return err
	}
	status, err := client.Status(s.ctx)
	if err != nil {
		return err
	}
	err = s.show(status, func(p report.Page) string {
		// The server's clock: what it says happened 3 s ago did.
		if !status.Time.IsZero() {
			p.Now = status.Time.Local()
		}
		return p.Status(status)
	})
	if err == nil && c.Check {
		err = check(status)
	}
	return err
}

// check is the error of a status that is not well.
func check(s admin.Status) error {
	var all []string
	if !s.Agree {
		all = append(all, "the nodes disagree")
	}
	errors := 0
	for _, p := range s.Problems {
		if p.Severity == "error" {
			errors++
		}
	}
	switch {
	case errors == 1:
		all = append(all, "there is 1 error")
	case errors > 1:
		all = append(all, fmt.Sprintf("there are %d errors", errors))
	}
	if len(all) == 0 {
		return nil
	}
	return fail(exitUnwell, "%s", strings.Join(all, ", "))
}

type mastersCommand struct {
	Evidence bool `help:"Also what each observer says of each master."`
}

func (c *mastersCommand) Run(s *session) error {
	client, err := s.ask()
	if err != nil {
		return err
	}
	masters, err := client.Masters(s.ctx)
	if err != nil {
		return err
	}
	return s.show(admin.Masters{Masters: masters}, func(p report.Page) string { return p.Masters(masters, c.Evidence) })
}

type zoneCommand struct {
	Datacenter string `arg:"" optional:"" help:"Whose domain; default: all."`
}

func (c *zoneCommand) Run(s *session) error {
	client, err := s.ask()
	if err != nil {
		return err
	}
	if c.Datacenter == "" {
		zones, err := client.Zones(s.ctx)
		if err != nil {
			return err
		}
		return s.show(admin.Zones{Zones: zones}, func(p report.Page) string { return p.Zones(zones) })
	}
	zone, err := client.Zone(s.ctx, c.Datacenter)
	if err != nil {
		return err
	}
	return s.show(zone, func(p report.Page) string { return p.Zones([]admin.Zone{zone}) })
}

type clusterCommand struct{}

func (c *clusterCommand) Run(s *session) error {
	client, err := s.ask()
	if err != nil {
		return err
	}
	cluster, err := client.Cluster(s.ctx)
	if err != nil {
		return err
	}
	return s.show(cluster, func(p report.Page) string { return p.Cluster(cluster) })
}

type versionCommand struct{}

func (c *versionCommand) Run(s *session) error {
	return s.show(map[string]string{"puppetsrvctl": release.Version}, func(report.Page) string { return "puppetsrvctl " + release.Version + "\n" })
}

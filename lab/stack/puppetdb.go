//go:build linux

package stack

import (
	"context"
	"fmt"
)

// configurePuppetDB writes PuppetDB's files, with the host's certificate.
func (h *Host) configurePuppetDB(migrate bool) error {
	for _, c := range []struct{ from, to string }{
		{"private_keys/" + h.FQDN() + ".pem", "private.pem"}, {"certs/" + h.FQDN() + ".pem", "public.pem"}, {"certs/ca.pem", "ca.pem"},
	} {
		text := h.Read("/var/lib/puppet/ssl/" + c.from)
		if text == "" {
			return fmt.Errorf("PuppetDB on %s needs %s", h.Short, c.from)
		}
		if err := h.Write("/etc/puppetdb/ssl/"+c.to, text, 0o600, "puppetdb"); err != nil {
			return err
		}
	}
	if err := h.render("jetty.ini", "/etc/puppetdb/conf.d/jetty.ini", 0o640, "puppetdb", nil); err != nil {
		return err
	}
	if err := h.Write("/etc/default/puppetdb", "JAVA_ARGS=\"-Xmx384m "+quickStart+"\"\n", 0o644, "root"); err != nil {
		return err
	}
	return h.migrate(migrate)
}

// migrate says whether PuppetDB makes its tables when it starts.
func (h *Host) migrate(yes bool) error {
	return h.render("database.ini", "/etc/puppetdb/conf.d/database.ini", 0o640, "puppetdb", map[string]any{"Migrate": yes})
}

// Query asks a PuppetDB over the host's own plain HTTP.
func (h *Host) Query(ctx context.Context, pql string) Result {
	return h.Run(ctx, "curl", "-sS", "--fail-with-body", "--max-time", "10", "-G", "http://127.0.0.1:8080/pdb/query/v4", "--data-urlencode", "query="+pql)
}

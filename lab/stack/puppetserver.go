//go:build linux

package stack

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// quickStart has a JVM compile with its quick compiler alone, which halves the CPU time of
// a start, and keep addresses for the zone's TTL (docs/operations.md).
const quickStart = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dsun.net.inetaddr.ttl=5"

// configurePuppet writes what a master's Puppet and puppetserver need.
func (h *Host) configurePuppet() error {
	names := []string{h.FQDN(), Camaster}
	for _, m := range Masters {
		names = append(names, h.s.Host(m).ServiceName())
	}
	if err := h.render("puppet.conf", "/etc/puppet/puppet.conf", 0o644, "root", map[string]any{"Short": h.Short, "Names": strings.Join(names, ",")}); err != nil {
		return err
	}
	for name, content := range map[string]string{
		"/etc/puppet/puppetserver/conf.d/ca.conf": "certificate-authority: {\n    allow-subject-alt-names: true\n}\n",
		// A PuppetDB that is silent would hold each JRuby for 2 minutes (docs/puppet.md).
		"/etc/puppet/puppetserver/conf.d/http-client.conf":  "http-client: {\n    connect-timeout-milliseconds: 2000\n    idle-timeout-milliseconds: 10000\n}\n",
		"/etc/default/puppetserver":                         "JAVA_ARGS=\"-Xms256m -Xmx1g " + quickStart + " -Djruby.logger.class=com.puppetlabs.jruby_utils.jruby.Slf4jLogger\"\nTK_ARGS=\n",
		"/etc/lab/drains":                                   "",
		"/etc/puppet/code/environments/production/REVISION": "lab-1\n",
	} {
		if err := h.Write(name, content, 0o644, "root"); err != nil {
			return err
		}
	}
	for _, name := range []string{"puppetdb.conf", "routes.yaml"} {
		if err := h.render(name, "/etc/puppet/"+name, 0o644, "root", nil); err != nil {
			return err
		}
	}
	if err := h.caService(slices.Contains(Capable, h.Short)); err != nil {
		return err
	}
	return h.deploy()
}

// caService switches puppetserver's CA service in ca.cfg, for its next start.
func (h *Host) caService(on bool) error {
	const enabled = "puppetlabs.services.ca.certificate-authority-service/certificate-authority-service\n"
	const disabled = "puppetlabs.services.ca.certificate-authority-disabled-service/certificate-authority-disabled-service\n"
	line := "#" + enabled + disabled
	if on {
		line = enabled + "#" + disabled
	}
	return h.Write("/etc/puppet/puppetserver/services.d/ca.cfg", line+"puppetlabs.trapperkeeper.services.watcher.filesystem-watch-service/filesystem-watch-service\n", 0o644, "root")
}

// deploy copies the environments to a master, with the Puppet module of this project.
func (h *Host) deploy() error {
	module := h.Path("/etc/puppet/code/modules/puppetsrv")
	copies := [][2]string{{filepath.Join(h.s.Source, "lab", "environments") + "/.", h.Path("/etc/puppet/code/environments")}}
	// Without the tests, which `go test ./...` would find again among the stack's files.
	for _, part := range []string{"metadata.json", "lib", "manifests", "templates", "types"} {
		copies = append(copies, [2]string{filepath.Join(h.s.Source, "puppet", part), module})
	}
	for _, c := range copies {
		if out, err := exec.Command("mkdir", "-p", c[1]).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if out, err := exec.Command("cp", "-r", c[0], c[1]).CombinedOutput(); err != nil {
			return fmt.Errorf("deploying to %s: %w: %s", h.Short, err, out)
		}
	}
	// What the long run fetches.
	for i := 1; i <= LongFiles; i++ {
		if err := h.Write(fmt.Sprintf("/etc/puppet/code/modules/lab/files/%02d", i), fmt.Sprintf("file %d\n", i), 0o644, "root"); err != nil {
			return err
		}
	}
	return nil
}

// LongFiles is how many files a run in the environment `long` fetches, one after the other.
const LongFiles = 60

// noKeepalive spares a new host 30 s. puppetserver 7.9.5 answers a signing request, and then
// nothing on the same connection until that has been idle for Jetty's 30 s (docs/puppet.md).
const noKeepalive = "--http_keepalive_timeout"

// bootstrap gets the host a certificate from a master's CA.
func (h *Host) bootstrap(ctx context.Context, server string) error {
	return h.Run(ctx, "puppet", "ssl", "bootstrap", "--server", server, "--waitforcert", "1", "--maxwaitforcert", "60", noKeepalive, "0").Error()
}

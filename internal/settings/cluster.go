package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// cluster is a PostgreSQL cluster in one of the usual places. These are the operating
// system's and not of Puppet's layout: Puppet's own packages on Debian are used with
// Debian's PostgreSQL.
type cluster struct {
	socket, data, config, bindir string
	start, stop                  []string
}

// clusterPatterns are where clusters are: of Debian's packages and postgresql.org's on
// it, of postgresql.org's on Red Hat's family, of Red Hat's own. %s is the major version.
var clusterPatterns = []struct{ data, config, bindir, unit string }{
	{"/var/lib/postgresql/%s/main", "/etc/postgresql/%s/main", "/usr/lib/postgresql/%s/bin", "postgresql@%s-main"},
	{"/var/lib/pgsql/%s/data", "/var/lib/pgsql/%s/data", "/usr/pgsql-%s/bin", "postgresql-%s"},
	{"/var/lib/pgsql/data", "/var/lib/pgsql/data", "/usr/bin", "postgresql"},
}

// findCluster returns the only cluster in the usual places, or the one with a data
// directory that is one of them.
func findCluster(files fs.FS, data string) (cluster, error) {
	var found []cluster
	for _, p := range clusterPatterns {
		pattern := strings.ReplaceAll(p.data, "%s", "*")
		matches := []string{data}
		if data == "" {
			matches, _ = fs.Glob(files, rooted(pattern))
		}
		for _, at := range matches {
			if at = path.Join("/", at); !matchPath(pattern, at) {
				continue
			}
			version := versionIn(p.data, at)
			fill := func(s string) string { return strings.ReplaceAll(s, "%s", version) }
			found = append(found, cluster{
				socket: "/var/run/postgresql", data: at, config: fill(p.config), bindir: fill(p.bindir),
				start: []string{"systemctl", "start", fill(p.unit)},
				stop:  []string{"systemctl", "stop", fill(p.unit)},
			})
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case data != "":
		return cluster{}, fmt.Errorf("%s is none of the usual places", data)
	case len(found) == 0:
		return cluster{}, errors.New("required: no database is in any of the usual places")
	}
	names := make([]string, len(found))
	for i, c := range found {
		names[i] = c.data
	}
	return cluster{}, fmt.Errorf("required: there is more than one database: %s", strings.Join(names, ", "))
}

func matchPath(pattern, at string) bool {
	ok, err := path.Match(pattern, at)
	return ok && err == nil
}

// versionIn is what stands for %s of a pattern in a path that matches it.
func versionIn(pattern, at string) string {
	before, after, ok := strings.Cut(pattern, "%s")
	if !ok {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(at, before), after)
}

package settings

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// maxConfig bounds what is read of a service's own configuration, in bytes.
const maxConfig = 1 << 20

func readConfig(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxConfig))
}

// addressTTL is the JVM's own time for addresses that it has looked up. Without it that
// is 30 s (networkaddress.cache.ttl in OpenJDK 11 and 17 without a security manager).
var addressTTL = regexp.MustCompile(`-Dsun\.net\.inetaddr\.ttl=(-?[0-9]+)`)

const goodTTL = 10 // seconds

// judgeJavaArgs reads JAVA_ARGS of puppetserver, which asks PuppetDB by the camaster's
// name.
func judgeJavaArgs(path string) Finding {
	const subject = "java"
	const advice = "set -Dsun.net.inetaddr.ttl=5 in JAVA_ARGS of %s, and restart puppetserver when it suits"
	data, err := readConfig(path)
	if err != nil {
		return finding(LevelWarning, subject, "%s: whether puppetserver keeps addresses for long is not known: set puppetserver.defaults", err)
	}
	ttl, found := "", false
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxConfig)
	for lines.Scan() {
		text := strings.TrimSpace(lines.Text())
		if name, _, ok := strings.Cut(strings.TrimPrefix(text, "export "), "="); !ok || strings.TrimSpace(name) != "JAVA_ARGS" {
			continue
		}
		ttl, found = "", true // the last assignment holds
		if m := addressTTL.FindAllStringSubmatch(text, -1); m != nil {
			ttl = m[len(m)-1][1]
		}
	}
	n, _ := strconv.Atoi(ttl)
	switch {
	case !found:
		return finding(LevelWarning, subject, "no JAVA_ARGS in %s: set puppetserver.defaults, or "+advice, path, path)
	case ttl == "":
		return finding(LevelWarning, subject, "puppetserver's JVM keeps addresses for 30 s, which adds that to every failover of PuppetDB: "+advice, path)
	case n < 0:
		return finding(LevelError, subject, "puppetserver's JVM keeps addresses for ever, and so will not follow the camaster until it is restarted: "+advice, path)
	case n > goodTTL:
		return finding(LevelWarning, subject, "puppetserver's JVM keeps addresses for %d s, which adds that to every failover of PuppetDB: "+advice, n, path)
	}
	return finding(LevelOK, subject, "puppetserver's JVM keeps addresses for %d s", n)
}

// migrateFalse is the setting in PuppetDB's HOCON files.
var migrateFalse = regexp.MustCompile(`(?m)^\s*"?migrate"?\s*[:=]\s*"?false"?\s*,?\s*$`)

// judgeMigrate reads whether PuppetDB leaves its database's schema alone at a start: with
// `migrate = true`, the default, it locks a table, which a standby refuses, and ends.
func judgeMigrate(dir string) Finding {
	const subject = "puppetdb"
	inis, _ := filepath.Glob(filepath.Join(dir, "*.ini"))
	confs, _ := filepath.Glob(filepath.Join(dir, "*.conf"))
	if len(inis)+len(confs) == 0 {
		return finding(LevelWarning, subject, "no configuration in %s: whether it has `migrate = false` is not known; set roles.puppetdb.config", dir)
	}
	value := ""
	for _, name := range inis {
		data, err := readConfig(name)
		if err != nil {
			return finding(LevelWarning, subject, "%s: whether it has `migrate = false` is not known", err)
		}
		if v, ok := iniValue(data, "database", "migrate"); ok {
			value = v
		}
	}
	for _, name := range confs {
		if data, err := readConfig(name); err == nil && migrateFalse.Match(data) {
			value = "false"
		}
	}
	if strings.EqualFold(value, "false") {
		return finding(LevelOK, subject, "`migrate = false`: it starts against a standby")
	}
	return finding(LevelError, subject, "with `mode: hot` it has to start against a standby, and ends there without `migrate = false` in [database] of %s: set it, and run migrations by hand at upgrades", filepath.Join(dir, "database.ini"))
}

// iniValue is a key's value, the last one.
func iniValue(data []byte, section, key string) (value string, found bool) {
	in := ""
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxConfig)
	for lines.Scan() {
		text := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(text, "#") || strings.HasPrefix(text, ";") {
			continue
		}
		if inner, ok := strings.CutPrefix(text, "["); ok {
			in, _, _ = strings.Cut(inner, "]")
			continue
		}
		k, v, ok := strings.Cut(text, "=")
		if ok && strings.TrimSpace(in) == section && strings.TrimSpace(k) == key {
			value, found = strings.TrimSpace(v), true
		}
	}
	return value, found
}

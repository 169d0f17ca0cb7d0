package settings

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// bounds are those of puppetserver's HTTP client, by which it asks PuppetDB. The defaults
// are of puppetserver 7 and 8 (http-client in puppetserver.conf).
var bounds = []struct {
	key      string
	advice   int           // milliseconds
	most     int           // milliseconds; what is longer is told
	standard time.Duration // where it is not set
}{
	{"connect-timeout-milliseconds", 2000, 5000, 2 * time.Minute},
	{"idle-timeout-milliseconds", 10000, 30000, 20 * time.Minute},
}

// checkHTTPClient reads how long puppetserver waits for a PuppetDB that has vanished.
func (s *Settings) checkHTTPClient(context.Context) []Finding {
	if s.Roles.PuppetDB == nil {
		return nil
	}
	return []Finding{judgeHTTPClient(s.Puppetserver.Config)}
}

// judgeHTTPClient looks for the bounds in a directory of puppetserver's configuration.
func judgeHTTPClient(dir string) Finding {
	const subject = "http-client"
	type setting struct{ value, file string }
	set := make(map[string]setting)
	var files []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		return finding(LevelWarning, subject, "%s: how long puppetserver waits for a PuppetDB that is silent is not known; set puppetserver.config", err)
	}
	for _, e := range entries {
		if slices.Contains([]string{".conf", ".json", ".ini"}, filepath.Ext(e.Name())) {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	if len(files) == 0 {
		return finding(LevelWarning, subject, "no configuration of puppetserver in %s: how long it waits for a PuppetDB that is silent is not known; set puppetserver.config", dir)
	}
	for _, name := range files {
		data, err := readConfig(name)
		if err != nil {
			return finding(LevelWarning, subject, "%s: how long puppetserver waits for a PuppetDB that is silent is not known", err)
		}
		if filepath.Ext(name) == ".ini" {
			for _, b := range bounds {
				if v, ok := iniValue(data, subject, b.key); ok {
					set[b.key] = setting{v, name}
				}
			}
			continue
		}
		hocon(data, func(key, value string) {
			if inner, ok := strings.CutPrefix(key, subject+"."); ok {
				set[inner] = setting{value, name}
			}
		})
	}
	var wrong, right, in []string // what is right already is not to be written twice: puppetserver does not start then
	for _, b := range bounds {
		v, ok := set[b.key]
		n, err := strconv.Atoi(v.value)
		said, file := "", v.file
		switch {
		case !ok:
			said = fmt.Sprintf("%s is not found in %s, and is then %d", b.key, dir, b.standard.Milliseconds())
			file = filepath.Join(dir, subject+".conf")
		case err != nil:
			said = fmt.Sprintf("%s is %.40q in %s, which is not understood here", b.key, v.value, v.file)
		case n <= 0:
			said = fmt.Sprintf("%s is %d in %s, which is no bound", b.key, n, v.file)
		case n > b.most:
			said = fmt.Sprintf("%s is %d in %s", b.key, n, v.file)
		default:
			continue
		}
		wrong, right = append(wrong, said), append(right, fmt.Sprintf("%s: %d", b.key, b.advice))
		if !slices.Contains(in, file) {
			in = append(in, file)
		}
	}
	if len(wrong) > 0 {
		return finding(LevelWarning, subject, "a PuppetDB that is silent holds puppetserver's JRubies for that long: %s; write `http-client: { %s }` in %s, and restart puppetserver when it suits",
			strings.Join(wrong, ", "), strings.Join(right, ", "), strings.Join(in, " and "))
	}
	return finding(LevelOK, subject, "puppetserver gives up a PuppetDB that is silent: no connection in %s ms, nothing on one in %s ms", set[bounds[0].key].value, set[bounds[1].key].value)
}

//go:build manual

package main

import (
	"fmt"
	"reflect"
	"strings"

	"campaign-credsync/internal/config"
)

// configMarkdown is docs/configure.md.
func configMarkdown() []byte {
	p := &page{}
	p.WriteString(configureHead)
	group := ""
	for _, k := range keysOf("", reflect.TypeFor[config.Config](), "") {
		of, name, inner := strings.Cut(k.name, ".")
		if !inner {
			of, name = "Without a group", k.name
		}
		if of != group {
			group = of
			fmt.Fprintf(p, "\n## %s\n\n", of)
		}
		text := k.text
		if k.allowed != "" {
			text = strings.TrimSpace("`" + strings.ReplaceAll(k.allowed, ", ", "`, `") + "`. " + text)
		}
		name = "`" + name + "`"
		if k.fallback != "" {
			name += " (`" + strings.Trim(k.fallback, "'") + "`)"
		}
		line := "- " + name + ": " + strings.TrimSuffix(text, ".")
		p.WriteString(strings.TrimSuffix(line, ": ") + "\n")
	}
	return p.Bytes()
}

const configureHead = `# Configure

Made by ` + "`make docs`" + `; do not edit.

` + "`/etc/campaign-credsync/config.yaml`" + `, owner root:neolane, mode 0640. Needed: ` + "`vault.address`, `vault.auth.role_id`" +
	` (or what another [login](vault.md#logins) takes), and of each instance ` + "`name` and `path`" + `. [An example](../packaging/systemd/config.example.yaml) has all keys.
An unknown key or a bad value stops the start; ` + "`campaign-credsync validate`" + ` tells its line, and ` + "`validate --effective`" + `
prints every default. After a change: ` + "`systemctl reload campaign-credsync`" + ` ([what it changes](operate.md#reload)).

Durations have a unit: 500ms, 30s, 5m, 1h. ` + "`${NAME}`" + ` in a path is replaced from the environment. Schedules are cron expressions: five fields, ` + "`@daily`, `@every 10m`" + `.
Defaults are in parentheses. The file wins over the variables ` + "`VAULT_…`" + `.
`

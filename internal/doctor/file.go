package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/regularfile"
	"campaign-credsync/sinks"
	"campaign-credsync/sinks/imsxml"
)

// maxFile bounds an instance's configuration file in bytes.
const maxFile = 16 << 20

// confDirectory looks at the directories of the instances' files.
func (x *examination) confDirectory(context.Context) (all []Finding) {
	var seen []string
	for _, i := range x.Config.Config.Instances {
		dir := filepath.Dir(i.ConfigFile)
		if resolved, err := filepath.EvalSymlinks(i.ConfigFile); err == nil {
			dir = filepath.Dir(resolved)
		}
		if slices.Contains(seen, dir) {
			continue
		}
		seen = append(seen, dir)
		info, err := os.Stat(dir)
		switch mode := modeOf(info); {
		case err != nil:
			all = append(all, notRead(dir, err))
		case mode&0o002 != 0:
			all = append(all, failed("chmod o-w "+dir, "everybody may write %s (mode %04o), so nothing is written there", dir, mode))
		case mode&0o020 != 0:
			all = append(all, warn("chmod g-w "+dir, "the group of %s may replace everything in it, the credential included (mode %04o)", dir, mode))
		case ownerOf(info) != x.campaignUser():
			all = append(all, warn(fmt.Sprintf("chown %d %s", x.campaignUser(), dir), "%s belongs to %s and not to Campaign's user, who replaces files there",
				dir, userName(ownerOf(info))))
		default:
			all = append(all, well("%s: mode %04o, of %s", dir, mode, userName(ownerOf(info))))
		}
	}
	return all
}

func modeOf(info fs.FileInfo) fs.FileMode {
	if info == nil {
		return 0
	}
	return info.Mode().Perm()
}

// instanceFile looks at the instances' files: whether they can be parsed, and who may read and write them.
func (x *examination) instanceFile(context.Context) []Finding {
	return x.each(func(i config.Instance) []Finding {
		file := i.ConfigFile
		info, err := os.Stat(file)
		if err != nil {
			return []Finding{notRead(file, err)}
		}
		var all []Finding
		mode := modeOf(info)
		if mode&0o002 != 0 {
			all = append(all, warn("chmod o-w "+file, "everybody may write %s (mode %04o), and so replace the credential", file, mode))
		}
		if mode&0o004 != 0 {
			all = append(all, warn("chmod o-r "+file, "everybody may read %s (mode %04o), with the database login and the secret as Campaign encrypts them", file, mode))
		}
		if ownerOf(info) != x.campaignUser() {
			all = append(all, warn(fmt.Sprintf("chown %d %s", x.campaignUser(), file), "%s belongs to %s and not to Campaign's user: drift is reverted "+
				"by nlserver, which is slow", file, userName(ownerOf(info))))
		}
		content, err := regularfile.Read(file, maxFile)
		if err == nil {
			if _, err = imsxml.Parse(content); err != nil {
				all = append(all, failed("repair it, or put it back from a backup; nothing is written until it can be parsed", "%s: %v", file, err))
			}
		} else {
			all = append(all, notRead(file, err))
		}
		if len(all) == 0 {
			all = append(all, well("well-formed, mode %04o, of %s", mode, userName(ownerOf(info))))
		}
		return all
	})
}

// pipelined looks for the attribute that Triggers need beside a technical account.
func (x *examination) pipelined(context.Context) []Finding {
	restarted := slices.Contains(x.Config.Config.Campaign.Activate.Restart, "pipelined")
	return x.each(func(i config.Instance) []Finding {
		elements, err := elements(i.ConfigFile, "pipelined")
		switch {
		case errors.Is(err, fs.ErrPermission):
			return []Finding{notRead(i.ConfigFile, err)}
		case err != nil:
			return nil // the check of the file says so
		case len(elements) == 0:
			return []Finding{well("the file has no <pipelined>")}
		case slices.ContainsFunc(elements, func(e map[string]string) bool { return e["authType"] == "imsJwtToken" }):
			return []Finding{well(`<pipelined> has authType="imsJwtToken"`)}
		case !restarted:
			return []Finding{well("<pipelined> has no authType, and campaign.activate.restart does not name it: Triggers seem not to be used")}
		}
		return []Finding{warn(fmt.Sprintf(`put authType="imsJwtToken" into <pipelined> of %s, then, as %s: nlserver restart pipelined@%s`, i.ConfigFile,
			userName(x.campaignUser()), i.Name), `<pipelined> has no authType="imsJwtToken", so Triggers do not use the technical account`)}
	})
}

// jwtEnded finds credentials of the kind that Adobe has ended.
func (x *examination) jwtEnded(context.Context) (all []Finding) {
	if x.Config.Config.Campaign.Command == config.CommandJWT {
		all = append(all, warn(credential.JWTRemedy, credential.JWTCommand))
	}
	return append(all, x.each(func(i config.Instance) []Finding {
		content, err := regularfile.Read(i.ConfigFile, maxFile)
		if errors.Is(err, fs.ErrPermission) {
			return []Finding{notRead(i.ConfigFile, err)}
		}
		document, wrong := imsxml.Parse(content)
		switch {
		case err != nil || wrong != nil:
			return nil // the check of the file says so
		case document.Attributes().HasPrivateKey():
			return []Finding{warn(credential.JWTRemedy, credential.JWTInFile)}
		}
		return []Finding{well("no JWT credential")}
	})...)
}

// elements returns the attributes of all elements of a name in a configuration file.
func elements(file, name string) ([]map[string]string, error) {
	content, err := regularfile.Read(file, maxFile)
	if err != nil {
		return nil, err
	}
	return imsxml.Elements(content, name)
}

// loginFiles looks at who may read what logs in to Vault, and credentials in files.
func (x *examination) loginFiles(context.Context) (all []Finding) {
	c := x.Config.Config
	files := []string{c.Vault.Auth.SecretIDFile, c.Vault.Auth.TokenFile, c.Vault.Auth.JWTFile, c.Vault.ClientKey}
	for _, i := range c.Instances {
		files = append(files, i.File)
	}
	slices.Sort(files)
	for _, file := range slices.Compact(files) {
		if file == "" {
			continue
		}
		info, err := os.Stat(file)
		switch mode := modeOf(info); {
		case err != nil:
			all = append(all, notRead(file, err))
		case mode&0o006 != 0:
			all = append(all, warn("chmod o-rwx "+file, "everybody may read or write %s (mode %04o)", file, mode))
		default:
			all = append(all, well("%s: mode %04o, of %s", file, mode, userName(ownerOf(info))))
		}
	}
	return all
}

// stateDir looks at the directory of the records.
func (x *examination) stateDir(context.Context) []Finding {
	dir := x.Config.Config.StateDir
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Finding{well("%s is not there yet: the first start makes it", dir)}
	case err != nil:
		return []Finding{notRead(dir, err)}
	}
	var all []Finding
	var system unix.Statfs_t
	if err := unix.Statfs(dir, &system); err != nil {
		return []Finding{notRead(dir, err)}
	}
	if system.Type == unix.TMPFS_MAGIC || system.Type == unix.RAMFS_MAGIC {
		all = append(all, warn("set state_dir to a directory on a disk, then: systemctl restart campaign-credsync",
			"%s is in memory: after a reboot the credential is applied anew, and refused logins and the brake are forgotten", dir))
	}
	if mode := modeOf(info); mode&0o077 != 0 {
		all = append(all, warn("chmod 0700 "+dir, "others may enter %s (mode %04o)", dir, mode))
	}
	if owner := ownerOf(info); owner != x.campaignUser() {
		all = append(all, failed(fmt.Sprintf("chown -R %d %s", x.campaignUser(), dir), "%s belongs to %s and not to Campaign's user, who runs the daemon", dir, userName(owner)))
	}
	if len(all) == 0 {
		all = append(all, well("%s: mode %04o, of %s, on a disk (%d MiB free)", dir, modeOf(info), userName(ownerOf(info)),
			system.Bavail*uint64(system.Bsize)>>20))
	}
	return all
}

// setAside finds files that only a person can decide about.
func (x *examination) setAside(context.Context) (all []Finding) {
	dir := x.Config.Config.StateDir
	asides, err := sinks.Asides(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return []Finding{notRead(dir, err)}
	}
	for _, a := range asides {
		all = append(all, of(a.Instance, warn("see whether that file is as it should be, or put it right from what was saved; then remove "+a.Path,
			"%s has %s as it was before a run that was interrupted or disturbed", a.Path, cmp.Or(a.Of, "the configuration file")))...)
	}
	if len(all) == 0 {
		all = append(all, well("nothing in %s waits for a person", dir))
	}
	return all
}

// readText reads a small file of the system's, without the line end.
func readText(path string) (string, error) {
	text, err := os.ReadFile(path)
	return strings.TrimSpace(string(text)), err
}

#!/bin/sh
# /etc/lab/service VERB NAME: what systemd does on a host with the packages' units and those
# of ours. VERB: start, stop, restart, reload, status.
set -eu
. /etc/lab/env
verb=$1 name=$2
pidfile=/run/lab/$name.pid
log=/var/log/lab/$name.log
user=root restart_file= notify= umask=022 patience=60
settings() { # the unit's EnvironmentFile
	JAVA_ARGS=
	. "/etc/default/$name"
}
case $name in
puppetserver) # ExecStart= of puppetserver.service
	settings
	user=puppet restart_file=/run/puppetserver/restart umask=027
	set -- /usr/bin/java $JAVA_ARGS -Djruby.lib=/usr/share/jruby/lib -XX:+CrashOnOutOfMemoryError \
		-jar /usr/share/puppetserver/puppetserver.jar --config /etc/puppet/puppetserver/conf.d \
		--bootstrap-config /etc/puppet/puppetserver/services.d --restart-file "$restart_file"
	;;
puppetdb) # ExecStart= of puppetdb.service
	settings
	user=puppetdb restart_file=/run/puppetdb/restart
	set -- /usr/bin/java $JAVA_ARGS -Djava.security.egd=/dev/urandom -cp /usr/share/puppetdb/puppetdb.jar clojure.main \
		-m puppetlabs.puppetdb.core services --config /etc/puppetdb/conf.d --bootstrap-config /etc/puppetdb/bootstrap.cfg \
		--restart-file "$restart_file"
	;;
postgresql)
	data=/var/lib/postgresql/data
	pidfile=$data/postmaster.pid log=/var/log/postgresql/postgresql.log
	;;
puppetsrv) set -- "$(command -v puppetsrv)" -conf /etc/puppetsrv/Corefile ;;
puppetsrv-member)
	notify=1
	set -- "$(command -v puppetsrv-member)" run
	;;
nsd) set -- /usr/sbin/nsd -d -c /etc/nsd/nsd.conf ;;
*)
	echo "no service $name" >&2
	exit 2
	;;
esac

pid() { head -n 1 "$pidfile" 2>/dev/null || true; }
runs() { p=$(pid) && [ -n "$p" ] && kill -0 "$p" 2>/dev/null; }
postgres() {
	cd / && setpriv --reuid=postgres --regid=postgres --init-groups "$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)/pg_ctl" -D "$data" -w -s "$@"
}

start() {
	if runs; then return; fi
	# The gates of packaging/systemd, and the order of its units.
	if [ -e "/etc/lab/gates/$name" ]; then puppetsrv-member gate "$name"; fi
	if [ "$name" = postgresql ]; then
		# The member may start it at the same moment: of a unit's two jobs there would be one.
		postgres -t 60 -l "$log" start || runs
		return
	fi
	if [ -n "$restart_file" ]; then
		printf 0 >"$restart_file"
		chown "$user:" "$restart_file"
	fi
	program=$1
	shift
	# NOTIFY_SOCKET is --notify-await's: it returns when READY=1 is sent.
	start-stop-daemon --start --quiet --background --make-pidfile --pidfile "$pidfile" --chdir / --umask "$umask" --chuid "$user" \
		--output "$log" ${notify:+--notify-await --notify-timeout 60} --startas "$program" -- "$@"
	# ExecStartPost= of the Java units.
	while [ -n "$restart_file" ] && [ "$(head -c1 "$restart_file")" != 1 ]; do
		if ! runs; then
			echo "$name has ended: see $log" >&2
			exit 1
		fi
		sleep 0.2
	done
	if [ "$name" = puppetserver ] && [ -e /etc/lab/drains ]; then puppetsrv-member undrain || true; fi
}

stop() {
	if ! runs; then return; fi
	# puppetsrv-drain.service stops before puppetserver does.
	if [ "$name" = puppetserver ] && [ -e /etc/lab/drains ]; then
		puppetsrv-member drain --wait --timeout 60s --for 15m --reason "puppetserver is stopped or restarted" || true
	fi
	if [ "$name" = postgresql ]; then
		postgres -m fast stop
		return
	fi
	start-stop-daemon --stop --quiet --oknodo --pidfile "$pidfile" --remove-pidfile --retry "TERM/$patience/KILL/5"
}

case $verb in
start) start "$@" ;;
stop) stop ;;
restart)
	stop
	start "$@"
	;;
reload)
	case $name in
	postgresql) postgres reload ;;
	puppetsrv) kill -USR1 "$(pid)" ;;
	*) kill -HUP "$(pid)" ;;
	esac
	;;
status) runs ;;
*)
	echo "no verb $verb" >&2
	exit 2
	;;
esac

# frozen_string_literal: true

Puppet::Type.newtype(:puppetsrv_setting) do
  @doc = <<-DOC
    One setting in one section of a puppet.conf, as `puppet config set` would write it: the rest of the
    file stays as it is, with its comments and its order. It says only what the file has: the settings that a run
    uses were read at its start.

        puppetsrv_setting { 'agent/server':
          value => 'puppet-camaster.example.net',
        }

    **Autorequires:** a `file` resource that manages the same puppet.conf.
  DOC

  newparam(:name, namevar: true) do
    desc 'SECTION/SETTING. The sections are those that Puppet knows: main, agent, server and user.'

    validate do |name|
      next if name =~ %r{\A(main|agent|server|user)/[a-z][a-z0-9_]*\z}

      raise ArgumentError, "#{name.inspect} is no SECTION/SETTING such as agent/server; the sections are main, agent, server and user"
    end
  end

  newparam(:conf) do
    desc "The file, by its absolute path; default: the puppet.conf that this run has read. It is made if it does not
      exist, not so its directory."

    # On the agent's side: the master's `$settings::config` is the path on the master.
    defaultto { Puppet[:config] }

    validate do |path|
      raise ArgumentError, "conf #{path.inspect}: want an absolute path" unless Puppet::Util.absolute_path?(path)
    end
  end

  newproperty(:value) do
    desc 'The value, on one line: 1 to 1024 characters.'

    # Puppet would take what is in braces for the owner and mode of a file.
    validate do |value|
      next if value.is_a?(String) && value =~ /\A[^\s{}[:cntrl:]]([^{}[:cntrl:]]{0,1022}[^\s{}[:cntrl:]])?\z/

      raise ArgumentError, "value #{value.inspect}: want 1 to 1024 characters on one line, without braces, and no space at either end"
    end
  end

  validate do
    raise ArgumentError, 'value: there is none: want the value of the setting' if self[:value].nil?
  end

  autorequire(:file) { self[:conf] }

  def section
    self[:name].split('/').first
  end

  def setting
    self[:name].split('/').last
  end
end

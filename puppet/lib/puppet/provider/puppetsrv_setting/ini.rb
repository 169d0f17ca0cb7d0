# frozen_string_literal: true

require 'stringio'
require 'puppet/settings/ini_file'

# What Puppet's own `puppet config set` edits the file with (lib/puppet/settings/ini_file.rb, the same in
# Puppet 7 and 8 and OpenVox 8 and 9): it finds the setting that Puppet finds, also where one is
# given twice. `puppet config set` rewrites the file in place; here a new one takes its place,
# so that an agent that starts meanwhile, or a crash, never meets half a file.
Puppet::Type.type(:puppetsrv_setting).provide(:ini) do
  desc "Puppet's own parser of puppet.conf."

  # Bytes; a real one has about a thousand.
  def self.max_bytes
    1024 * 1024
  end

  def value
    ini = Puppet::Settings::IniFile.parse(StringIO.new(text))
    warn_of_agent(ini) if resource.section == 'main'
    line = ini.setting(resource.section, resource.setting)
    line ? line.value : :absent
  end

  def value=(wanted)
    file = StringIO.new(text)
    Puppet::Settings::IniFile.update(file) { |ini| ini.set(resource.section, resource.setting, wanted) }
    write(file.string)
  end

  private

  # A section of the agent goes before main: what is written there would change nothing.
  def warn_of_agent(ini)
    return unless ini.setting('agent', resource.setting)

    resource.warning("[agent] in #{resource[:conf]} has #{resource.setting} too, and agents take that one: remove it there, or set it there")
  end

  # The file's text, "" where there is no file. Errors name it.
  def text
    path = resource[:conf]
    return String.new unless File.exist?(path)

    found = File.open(path, 'rb') { |f| f.read(self.class.max_bytes + 1) } || String.new
    found.force_encoding(Encoding::UTF_8)
    raise Puppet::Error, "#{path}: more than #{self.class.max_bytes} bytes: this is no puppet.conf" if found.bytesize > self.class.max_bytes
    raise Puppet::Error, "#{path}: this is not UTF-8: Puppet cannot read it either" unless found.valid_encoding?

    @crlf = found.include?("\r\n")
    @crlf ? found.gsub("\r\n", "\n") : found
  end

  # Owner and mode are kept, and a link to the file.
  def write(content)
    content = content.gsub("\n", "\r\n") if @crlf
    path = resource[:conf]
    path = File.realpath(path) if File.exist?(path)
    Puppet::Util.replace_file(path, 0o644) do |file|
      file.binmode
      file.write(content)
    end
  end
end

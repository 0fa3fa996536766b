/** `molt config`: every setting, its value, its source and its meaning. */
import { SETTINGS, SETTING_NAMES, environmentName } from '../config.ts';
import { type CommandContext, loadSettings, printResult } from './command.ts';

export async function configCommand(context: CommandContext): Promise<void> {
  const { settings, sources } = await loadSettings(context);
  const { terminal } = context;
  const lines = SETTING_NAMES.flatMap((name) => [
    `${terminal.style('bold', name)} = ${JSON.stringify(settings[name])}  ${terminal.style('dim', `(${sources[name]}; ${SETTINGS[name].unit}; ${environmentName(name)})`)}`,
    `    ${SETTINGS[name].text}`,
  ]);
  const value = Object.fromEntries(
    SETTING_NAMES.map((name) => [name, { value: settings[name], source: sources[name] }]),
  );
  printResult(context, { file: context.home.config, settings: value }, [context.home.config, '', ...lines]);
}

/** Machine-made XML as a tree: elements and their text, bounded, and nothing for what is not well-formed. */
import sax from 'sax';

export interface XmlElement {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: readonly XmlElement[];
  readonly text: string;
}

const CHARACTERS_MAX = 8 << 20;
const DEPTH_MAX = 32;

interface Open {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: XmlElement[];
  text: string;
}

/** The root element; undefined for anything that is not one well-formed document. Never throws. */
export function parseXml(xml: string): XmlElement | undefined {
  if (xml.length > CHARACTERS_MAX) return undefined;
  const parser = sax.parser(true);
  const open: Open[] = [];
  let root: XmlElement | undefined;
  let broken = false;
  parser.onerror = () => {
    broken = true;
  };
  parser.onopentag = ({ name, attributes }) => {
    if (open.length >= DEPTH_MAX) broken = true;
    else open.push({ name, attributes: attributes as Record<string, string>, children: [], text: '' });
  };
  parser.ontext = (text) => {
    const element = open.at(-1);
    if (element !== undefined) element.text += text;
  };
  parser.onclosetag = () => {
    const element = open.pop();
    if (element === undefined) return;
    const parent = open.at(-1);
    if (parent === undefined) root = element;
    else parent.children.push(element);
  };
  try {
    parser.write(xml).close();
  } catch {
    return undefined;
  }
  return broken || open.length > 0 ? undefined : root;
}

export function childrenOf(element: XmlElement, name: string): readonly XmlElement[] {
  return element.children.filter((child) => child.name === name);
}

/** Trimmed text of the element that the path of names leads to, "" when there is none. */
export function textAt(element: XmlElement, ...path: readonly string[]): string {
  let here: XmlElement | undefined = element;
  for (const name of path) here = here?.children.find((child) => child.name === name);
  return here?.text.trim() ?? '';
}
